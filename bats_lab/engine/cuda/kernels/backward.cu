// Backpropagation (eq. 11-16) without a walk through time.
//
// In the frame of a crossing k an input spike z that came before it counts (E^2 - E) tau / x_k, E = exp((z - k) / tau).
// Summed over the crossings of a neuron from k on, that is F E^2 - H E with two numbers of crossing k alone: those of the
// next crossing fade into them. So the backward pass visits crossings only, of which a neuron has few, and an input
// spike costs one exponential per neuron: that to the first crossing it came before. Exponents are relative to the
// group of inputs before the crossing (`base` on a grid, `origin` in continuous time), so that they keep their
// precision on long windows. Where tau is not twice tau_syn, F and H are what engine.cpu.newton has.

// F and H of each crossing, from the errors of spikes: one thread a neuron and row. They take the places of slope and
// fade, which nothing needs any more. `slot_stride` is 0 where all spikes of a neuron have one error.
template <typename T>
__global__ void backward(
    const T* errors, int row_stride, int slot_stride, const int* n_records, const T* time, const int* tick,
    const T* origin, const int* base, const double* reals, const int* integers, int n_rows, int batch, int n_post,
    int lanes, int max_spikes, T* slope, T* fade) {
    const int64 thread = global_thread();
    const int64 row = thread / lanes;
    const int post = (int)(thread % lanes);
    if (row >= n_rows || post >= n_post) return;
    const int network = (int)(row / batch);
    const double delta_t = reals[network * N_REALS + DELTA_T];
    const T c = T(reals[network * N_REALS + C]), tau = T(reals[network * N_REALS + TAU]);
    const bool grid = delta_t > 0, clocked = integers[network * N_INTEGERS + RULE] == CLOCKED;
    const T tau_syn = T(reals[network * N_REALS + TAU_SYN]);
    const T rate = T((grid ? delta_t : 1.0) / (double)tau);
    T chain = 0, later = 0, f = 0, h = 0;
    int64 at = row * max_spikes * n_post + post;
    const int64 records = at;
    for (int k = n_records[row * n_post + post] - 1; k >= 0; --k) {
        at = records + (int64)k * n_post;
        const T t = time[at];
        T delta = tick[at] >= 0 ? errors[row * row_stride + (int64)k * slot_stride + post] : T(0);
        if (chain != T(0)) {
            chain *= exp((t - later) / tau);
            // Eq. 13, second sum. A clocked neuron resets at its tick, not at the crossing.
            delta += clocked ? chain * T(exp((tick[at] * delta_t - (double)t) / (double)tau)) : chain;
        }
        T scaled = delta / slope[at];
        chain += scaled * c;
        later = t;
        if (ANY_RATIO && tau_syn > T(0)) {
            if (f != T(0) || h != T(0)) {
                const T distance = grid ? T((base[at + n_post] - base[at]) * delta_t) : origin[at + n_post] - origin[at];
                const Response<T> fades(distance, tau, tau_syn);
                f = fades.syn * f - tau * fades.spread * h;
                h *= fades.leak;
            }
            f -= scaled * tau * Response<T>(-tau * log(fade[at]), tau, tau_syn).spread;
            h += scaled * fade[at];
            slope[at] = f;
            fade[at] = h;
            continue;
        }
        scaled *= tau;
        if (f != T(0) || h != T(0)) {
            const T distance = grid ? T(base[at] - base[at + n_post]) : origin[at] - origin[at + n_post];
            const T e = exp(distance * rate);
            f *= e * e;
            h *= e;
        }
        const T s = fade[at];
        f += scaled * s * s;
        h += scaled * s;
        slope[at] = f;
        fade[at] = h;
    }
}

// How an input spike is told to have come before a crossing: eq. 14 on a grid, by continuous times where those decide
// (`straight`: straight-through, eq. 15-16). With `by_bin` (rule defer, which sends later) `order` is the tick of eq. 14
// in place of the group.
struct Causality {
    bool grid, straight, by_bin;
};

// Time constants of a layer: 1/tau in the units in which spikes are apart (ticks on a grid), and seconds of such a unit;
// `tau_syn` is 0 where crossings have the closed form.
template <typename T> struct Rates {
    T rate, unit, tau, tau_syn;

    __device__ Rates(const double* real)
        : rate(T((real[DELTA_T] > 0 ? real[DELTA_T] : 1.0) / (double)T(real[TAU]))),
          unit(T(real[DELTA_T] > 0 ? real[DELTA_T] : 1.0)), tau(T(real[TAU])), tau_syn(T(real[TAU_SYN])) {}
};

// What is known of a crossing when an input spike asks whether it came before it.
template <typename T> struct Crossing {
    T time, f, h, origin;
    int bin, order, base;

    // What was sent up to the group before the crossing came before it for sure. Where continuous times decide, of the
    // next group that which left on no later tick may have.
    __device__ bool is_after(int spike_order, int spike_tick, T spike_time, Causality causality) const {
        return spike_order <= order || (causality.straight && spike_order == order + 1 &&
                                        (causality.by_bin || spike_tick <= bin) && spike_time < time);
    }

    // d crossing / d weight of an input spike, with what is propagated back (the text above), or tau times d crossing / d
    // time of the spike, for a weight of 1.
    __device__ T share(int spike_tick, T spike_time, Causality causality, const Rates<T>& rates, bool of_time) const {
        const T distance = causality.grid ? T(spike_tick - base) : spike_time - origin;
        if (ANY_RATIO && rates.tau_syn > T(0)) {
            const Response<T> fades(-distance * rates.unit, rates.tau, rates.tau_syn);
            const T of_weight = f * fades.syn - h * rates.tau * fades.spread;
            return of_time ? rates.tau * (of_weight / rates.tau_syn + h * fades.leak) : of_weight;
        }
        const T e = exp(distance * rates.rate);
        return ((of_time ? T(2) : T(1)) * f * e - h) * e;
    }
};

template <typename T> struct Crossings {
    const T *time, *f, *h, *origin;
    const int *bin, *group, *base;

    __device__ Crossing<T> get(int64 at, Causality causality) const {
        Crossing<T> crossing = {};
        crossing.f = f[at];
        crossing.h = h[at];
        if (causality.grid)
            crossing.base = base[at];
        else
            crossing.origin = origin[at];
        if (causality.straight) {
            crossing.time = time[at];
            crossing.bin = bin[at];
        }
        crossing.order = causality.by_bin ? crossing.bin - 1 : group[at];
        return crossing;
    }
};

// Errors of the spikes of the layer below, which are this layer's inputs (eq. 13, first sum): `n_blocks` blocks a row, of
// which each takes some spikes after others. `n_parts` threads share a spike, and each sums over its share of the
// neurons; their sums are added in order. There weights come through shared memory, a few of each thread's at a time, so
// that neighbouring threads read neighbouring ones. The errors go to the crossings that sent the spikes.
enum { POSTS = 8 };
template <typename T>
__global__ void input_errors(
    const T* weights, const int* n_sent, const int* pre, const T* by_time, const int* by_tick, const int* by_order,
    const int* target, int room, const T* time, const T* f, const T* h, const T* origin, const int* bin,
    const int* group, const int* base, const int* n_records, const double* reals, const int* integers, int batch,
    int n_pre, int n_post, int max_spikes, int n_blocks, int n_parts, T* errors) {
    SHARED_ARRAY(double, shared);
    const int n_threads = blockDim.x, n_spikes = n_threads / n_parts;
    const int spike = threadIdx.x % n_spikes, part = threadIdx.x / n_spikes;
    T* const sums = (T*)shared;
    T* const staged = sums + n_threads + part * n_spikes * (POSTS + 1);
    const int64 row = blockIdx.x / n_blocks;
    const int network = (int)(row / batch);
    const double delta_t = reals[network * N_REALS + DELTA_T];
    const Rates<T> rates(reals + network * N_REALS);
    const double q = reals[network * N_REALS + SURROGATE];
    const bool grid = delta_t > 0, straight = grid && !integers[network * N_INTEGERS + BY_SENT];
    const Causality causality = {grid, straight, straight && integers[network * N_INTEGERS + RULE] == DEFER};
    const Crossings<T> crossings = {time, f, h, origin, bin, group, base};
    const int64 events = row * room, records = row * max_spikes * n_post;
    const int n = n_sent[row], share = (n_post + n_parts - 1) / n_parts;
    const int begin_post = part * share, end_post = min(begin_post + share, n_post);
    n_records += row * n_post;
    weights += (int64)network * n_pre * n_post;
    pre += events;
    for (int first = (int)(blockIdx.x % n_blocks) * n_spikes; first < n; first += n_blocks * n_spikes) {
        const int i = first + spike;
        const int spike_order = i < n ? by_order[events + i] : 0, spike_tick = i < n ? by_tick[events + i] : 0;
        const T spike_time = i < n ? by_time[events + i] : T(0);
        T sum = 0;
        const T* weight = n_parts == 1 ? weights + (int64)(i < n ? pre[i] : 0) * n_post : staged + spike * (POSTS + 1);
        for (int offset = 0; offset < share; offset += POSTS) {
            if (n_parts > 1) {
                __syncthreads();
#pragma unroll
                for (int j = 0; j < POSTS; ++j) {
                    const int at = j * n_spikes + spike, its = at / POSTS, post = begin_post + offset + at % POSTS;
                    if (first + its < n && post < end_post)
                        staged[its * (POSTS + 1) + at % POSTS] = weights[(int64)pre[first + its] * n_post + post];
                }
                __syncthreads();
            }
            const int begin = begin_post + offset, end = i < n ? min(begin + POSTS, end_post) : 0;
            for (int post = begin; post < end; ++post) {
                const int n_crossings = n_records[post];
                for (int k = 0; k < n_crossings; ++k) {
                    const Crossing<T> crossing = crossings.get(records + (int64)k * n_post + post, causality);
                    if (!crossing.is_after(spike_order, spike_tick, spike_time, causality)) continue;
                    sum += weight[post - begin] * crossing.share(spike_tick, spike_time, causality, rates, true);
                    break;
                }
            }
            if (n_parts == 1) weight += POSTS;
        }
        if (n_parts > 1) {
            sums[threadIdx.x] = sum;
            __syncthreads();
            for (int other = 1; other < n_parts && part == 0; ++other) sum += sums[other * n_spikes + spike];
        }
        if (i >= n || part > 0) continue;
        sum /= rates.tau;
        // The surrogate's slope where the spike crossed: bats_lab.spikes.grid.surrogate_slope.
        if (grid && q > 0)
            sum *= T((1.0 - q * q) / (1.0 - 2.0 * q * cos(2.0 * PI * ((double)spike_time / delta_t)) + q * q));
        errors[events + target[events + i]] = sum;
    }
}

// The weight gradient of a batch (eq. 12) and, in the same pass, Adam. A block has `n_posts` neurons and `n_inputs` of
// their inputs, a multiple of ROWS_PER_RANGE. The rows of the batch are dealt to `n_splits` warps a neuron. A warp goes
// through the crossings of its neuron, which its threads read together, and each thread through the spikes of an input,
// side by side with the crossings. What it finds is summed in shared memory; the sums of the splits are added in order,
// so that each entry has one order of summation, whatever the group and the device. The gradient never goes through
// memory: with ADAM. Without it, it is added to `gradient`.
enum { STORED = 1, ADAM = 2 };  // begin with what is in `gradient`; update weights and leave `gradient` cleared
template <typename T>
__global__ void update(
    const int64* event_at, const int64* tick_at, const int64* range_at, const int* pre, const T* by_time,
    const int* by_tick, const int* by_order, const int* ranges, int n_ranges, const T* time, const T* f, const T* h,
    const T* origin, const int* bin, const int* group, const int* base, const int* n_records, const double* reals,
    const int* integers, int batch, int n_samples, int n_pre, int n_post, int max_spikes, int n_inputs, int n_posts,
    int n_splits, int hidden_inputs, int visit, int mode, const int* step, const double* adam, const double* rates,
    int n_updates, T* __restrict__ gradient, T* __restrict__ first_moment, T* __restrict__ second_moment,
    T* __restrict__ weights) {
    SHARED_ARRAY(double, shared);
    T* const sums = (T*)shared;  // (split, neuron, input)
    const int n_threads = blockDim.x, lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    const int n_tiles = (n_pre + n_inputs - 1) / n_inputs, n_groups = (n_post + n_posts - 1) / n_posts;
    const int first_post = (int)(blockIdx.x % n_groups) * n_posts, tile = (int)(blockIdx.x / n_groups % n_tiles);
    const int network = (int)(blockIdx.x / n_groups / n_tiles), begin_pre = tile * n_inputs;
    const int width = n_inputs | 1;  // odd: neighbouring threads of the second half are in different banks
    for (int i = threadIdx.x; i < n_splits * n_posts * width; i += n_threads) sums[i] = T(0);
    __syncthreads();

    const int post = first_post + warp % n_posts;
    if (visit && post < n_post) {
        T* const own_sums = sums + warp * width - begin_pre;
        const double delta_t = reals[network * N_REALS + DELTA_T];
        const bool grid = delta_t > 0, straight = grid && !integers[network * N_INTEGERS + BY_SENT];
        const Causality causality = {grid, straight,
                                 hidden_inputs && straight && integers[network * N_INTEGERS + RULE] == DEFER};
        const Rates<T> rates(reals + network * N_REALS);
        const Crossings<T> crossings = {time, f, h, origin, bin, group, base};
        const int per_tile = n_inputs / ROWS_PER_RANGE;
        const int first_range = tile * per_tile, last_range = min(first_range + per_tile, n_ranges);
        const int64 end_row = (int64)(network + 1) * batch;
        for (int64 row = (int64)network * batch + warp / n_posts; row < end_row; row += n_splits) {
            const int n = n_records[row * n_post + post];
            if (n == 0) continue;
            const int* range = ranges + range_at[row];
            const int begin = range[first_range], end = range[last_range];
            const int64 events = event_at[row], ticks = tick_at[row], records = row * max_spikes * n_post + post;
            for (int i = begin + lane; i < end; i += LANES) {
                const int input = pre[events + i];
                // The first spike of an input takes those after it along: their order is that of summation.
                if (i > begin && pre[events + i - 1] == input) continue;
                T sum = own_sums[input];
                int spike = i, k = 0;
                Crossing<T> crossing = crossings.get(records, causality);
                while (true) {
                    const int spike_order = by_order[ticks + spike], spike_tick = grid ? by_tick[ticks + spike] : 0;
                    const T spike_time = causality.straight || !grid ? by_time[events + spike] : T(0);
                    // The first crossing that a spike came before has all that is to be said.
                    while (!crossing.is_after(spike_order, spike_tick, spike_time, causality) && ++k < n)
                        crossing = crossings.get(records + (int64)k * n_post, causality);
                    if (k == n) break;
                    sum += crossing.share(spike_tick, spike_time, causality, rates, false);
                    if (++spike == end || pre[events + spike] != input) break;
                }
                own_sums[input] = sum;
            }
            __syncwarp();  // another thread may have this input in the next row
        }
    }
    __syncthreads();

    // Kingma and Ba (2015), Algorithm 1. As engine.cpu.backward._adam. Neighbouring threads have neighbouring weights.
    const int64 done = mode & ADAM ? (int64)*step * batch : 0;
    const T scale = T(1.0 / (double)min((int64)batch, n_samples - done));
    T beta_1 = 0, beta_2 = 0, epsilon = 0, step_size = 0, root_scale = 0;
    if (mode & ADAM) {
        beta_1 = T(adam[3 * network]), beta_2 = T(adam[3 * network + 1]), epsilon = T(adam[3 * network + 2]);
        const double* rates_now = rates + 2 * ((int64)network * n_updates + *step);
        step_size = T(rates_now[0]), root_scale = T(rates_now[1]);
    }
    const int end_input = min(n_inputs, n_pre - begin_pre);
    for (int entry = threadIdx.x; entry < end_input * n_posts; entry += n_threads) {
        const int own = entry % n_posts, input = entry / n_posts;
        if (first_post + own >= n_post) continue;
        T sum = 0;
        for (int split = 0; split < n_splits; ++split) sum += sums[(split * n_posts + own) * width + input];
        const int64 at = ((int64)network * n_pre + begin_pre + input) * n_post + first_post + own;
        if (mode & STORED) sum += gradient[at];
        if (!(mode & ADAM)) {
            gradient[at] = sum;
            continue;
        }
        const T g = sum * scale;
        const T m = beta_1 * first_moment[at] + (T(1) - beta_1) * g;
        const T v = beta_2 * second_moment[at] + (T(1) - beta_2) * g * g;
        first_moment[at] = m;
        second_moment[at] = v;
        weights[at] -= step_size * m / (sqrt(v) * root_scale + epsilon);
        if (mode & STORED) gradient[at] = T(0);
    }
}

// Squares and number of weights that are not finite, of the inputs of each neuron: one thread a neuron.
template <typename T>
__global__ void inspect_weights(const T* weights, int n_networks, int n_pre, int n_post, double* squares, int* broken) {
    const int64 thread = global_thread();
    if (thread >= (int64)n_networks * n_post) return;
    weights += thread / n_post * n_pre * n_post + thread % n_post;
    double sum = 0;
    int bad = 0;
    for (int i = 0; i < n_pre; ++i) {
        const T w = weights[(int64)i * n_post];
        sum += (double)w * (double)w;
        bad += !is_finite(w);
    }
    squares[thread] = sum;
    broken[thread] = bad;
}
