// Backpropagation (eq. 11-16) without a walk through time.
//
// In the frame of a crossing k an input spike z that came before it counts (E^2 - E) tau / x_k, E = exp((z - k) / tau).
// Summed over the crossings of a neuron from k on, that is F E^2 - H E with two numbers of crossing k alone: those of the
// next crossing fade into them. So the backward pass visits crossings only, of which a neuron has few, and an input
// spike costs one exponential per neuron: that to the first crossing it came before. Exponents are relative to the
// group of inputs before the crossing (`base` on a grid, `origin` in continuous time), so that they keep their
// precision on long windows.

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
struct Telling {
    bool grid, straight, by_bin;
};

// What is known of a crossing when an input spike asks whether it came before it.
template <typename T> struct Crossing {
    T time, f, h, origin;
    int bin, order, base;

    // What was sent up to the group before the crossing came before it for sure. Where continuous times decide, of the
    // next group that which left on no later tick may have.
    __device__ bool is_after(int spike_order, int spike_tick, T spike_time, Telling telling) const {
        return spike_order <= order || (telling.straight && spike_order == order + 1 &&
                                        (telling.by_bin || spike_tick <= bin) && spike_time < time);
    }

    // d crossing / d weight of an input spike, with what is propagated back (the text above).
    __device__ T share(int spike_tick, T spike_time, Telling telling, T rate, T factor) const {
        const T e = exp((telling.grid ? T(spike_tick - base) : spike_time - origin) * rate);
        return (factor * f * e - h) * e;
    }
};

template <typename T> struct Crossings {
    const T *time, *f, *h, *origin;
    const int *bin, *group, *base;

    __device__ Crossing<T> get(int64 at, Telling telling) const {
        Crossing<T> crossing = {};
        crossing.f = f[at];
        crossing.h = h[at];
        if (telling.grid)
            crossing.base = base[at];
        else
            crossing.origin = origin[at];
        if (telling.straight) {
            crossing.time = time[at];
            crossing.bin = bin[at];
        }
        crossing.order = telling.by_bin ? crossing.bin - 1 : group[at];
        return crossing;
    }
};

// Errors of the spikes of the layer below, which are this layer's inputs (eq. 13, first sum): `n_blocks` blocks a row,
// of which each thread takes a spike after the other. They go to the crossings that sent the spikes. Weights come
// through shared memory, a few of each thread's spike at a time, so that neighbouring threads read neighbouring ones.
enum { POSTS = 16 };
template <typename T>
__global__ void input_errors(
    const T* weights, const int* n_sent, const int* pre, const T* by_time, const int* by_tick, const int* by_order,
    const int* target, int room, const T* time, const T* f, const T* h, const T* origin, const int* bin,
    const int* group, const int* base, const int* n_records, const double* reals, const int* integers, int batch,
    int n_pre, int n_post, int max_spikes, int n_blocks, T* errors) {
    SHARED_ARRAY(double, shared);
    T* const staged = (T*)shared;
    const int n_threads = blockDim.x;
    const int64 row = blockIdx.x / n_blocks;
    const int network = (int)(row / batch);
    const double delta_t = reals[network * N_REALS + DELTA_T];
    const T tau = T(reals[network * N_REALS + TAU]);
    const double q = reals[network * N_REALS + SURROGATE];
    const bool grid = delta_t > 0, straight = grid && !integers[network * N_INTEGERS + BY_SENT];
    const Telling telling = {grid, straight, straight && integers[network * N_INTEGERS + RULE] == DEFER};
    const T rate = T((grid ? delta_t : 1.0) / (double)tau);
    const Crossings<T> crossings = {time, f, h, origin, bin, group, base};
    const int64 events = row * room, records = row * max_spikes * n_post;
    const int n = n_sent[row];
    n_records += row * n_post;
    weights += (int64)network * n_pre * n_post;
    pre += events;
    for (int first = (int)(blockIdx.x % n_blocks) * n_threads; first < n; first += n_blocks * n_threads) {
        const int i = first + threadIdx.x;
        const int spike_order = i < n ? by_order[events + i] : 0, spike_tick = i < n ? by_tick[events + i] : 0;
        const T spike_time = i < n ? by_time[events + i] : T(0);
        T sum = 0;
        for (int first_post = 0; first_post < n_post; first_post += POSTS) {
            __syncthreads();
            for (int entry = threadIdx.x; entry < POSTS * n_threads; entry += n_threads) {
                const int spike = entry / POSTS, post = first_post + entry % POSTS;
                if (first + spike < n && post < n_post)
                    staged[spike * (POSTS + 1) + entry % POSTS] = weights[(int64)pre[first + spike] * n_post + post];
            }
            __syncthreads();
            const int end_post = i < n ? min(first_post + POSTS, n_post) : 0;
            for (int post = first_post; post < end_post; ++post) {
                const int n_crossings = n_records[post];
                for (int k = 0; k < n_crossings; ++k) {
                    const Crossing<T> crossing = crossings.get(records + (int64)k * n_post + post, telling);
                    if (!crossing.is_after(spike_order, spike_tick, spike_time, telling)) continue;
                    sum += staged[threadIdx.x * (POSTS + 1) + post - first_post] *
                           crossing.share(spike_tick, spike_time, telling, rate, T(2));
                    break;
                }
            }
        }
        if (i >= n) continue;
        sum /= tau;
        // The surrogate's slope where the spike crossed: bats_lab.spikes.grid.surrogate_slope.
        if (grid && q > 0)
            sum *= T((1.0 - q * q) / (1.0 - 2.0 * q * cos(2.0 * PI * ((double)spike_time / delta_t)) + q * q));
        errors[events + target[events + i]] = sum;
    }
}

// The neuron, the share of its inputs and the network of a column of `update`.
struct Column {
    int post, tile, network;
};
__device__ inline Column column(int i, int n_columns, int lanes, int n_tiles) {
    const int64 at = (int64)blockIdx.x * n_columns + i;
    return {(int)(at % lanes), (int)(at / lanes % n_tiles), (int)(at / lanes / n_tiles)};
}

// The weight gradient of a batch (eq. 12) and, in the same pass, Adam. A column is a neuron and `n_inputs` of its inputs,
// a multiple of ROWS_PER_RANGE. The rows of a batch are dealt to `n_splits` threads a column, each of which sums its own
// in order, in shared memory; their sums are added in order, so that each entry has one order of summation, whatever
// the group and the device. The gradient never goes through memory: with ADAM. Without it, it is added to `gradient`.
enum { STORED = 1, ADAM = 2 };  // begin with what is in `gradient`; update weights and leave `gradient` cleared
template <typename T>
__global__ void update(
    const int64* event_at, const int64* tick_at, const int64* range_at, const int* pre, const T* by_time,
    const int* by_tick, const int* by_order, const int* ranges, int n_ranges, const T* time, const T* f, const T* h,
    const T* origin, const int* bin, const int* group, const int* base, const int* n_records, const double* reals,
    const int* integers, int n_networks, int batch, int n_samples, int n_pre, int n_post, int lanes, int max_spikes,
    int n_inputs, int n_splits, int hidden_inputs, int visit, int mode, const int* step, const double* adam,
    const double* rates, int n_updates, T* __restrict__ gradient, T* __restrict__ first_moment,
    T* __restrict__ second_moment, T* __restrict__ weights) {
    SHARED_ARRAY(double, shared);
    T* const sums = (T*)shared;  // (input, split, column)
    const int n_threads = blockDim.x, n_columns = n_threads / n_splits;
    const int n_tiles = (n_pre + n_inputs - 1) / n_inputs;
    for (int i = 0; i < n_inputs; ++i) sums[i * n_threads + threadIdx.x] = T(0);

    const Column own = column(threadIdx.x % n_columns, n_columns, lanes, n_tiles);
    if (visit && own.network < n_networks && own.post < n_post) {
        const int network = own.network, post = own.post, begin_pre = own.tile * n_inputs;
        T* const own_sums = sums + threadIdx.x;
        const double delta_t = reals[network * N_REALS + DELTA_T];
        const bool grid = delta_t > 0, straight = grid && !integers[network * N_INTEGERS + BY_SENT];
        const Telling telling = {grid, straight,
                                 hidden_inputs && straight && integers[network * N_INTEGERS + RULE] == DEFER};
        const T rate = T((grid ? delta_t : 1.0) / (double)T(reals[network * N_REALS + TAU]));
        const Crossings<T> crossings = {time, f, h, origin, bin, group, base};
        const int per_tile = n_inputs / ROWS_PER_RANGE;
        const int first_range = own.tile * per_tile, last_range = min(first_range + per_tile, n_ranges);
        const int64 end_row = (int64)(network + 1) * batch;
        int64 row = (int64)network * batch + threadIdx.x / n_columns;
        int next_n = row < end_row ? n_records[row * n_post + post] : 0;
        int64 next_range = row < end_row ? range_at[row] : 0;
        for (; row < end_row; row += n_splits) {
            const int n = next_n;
            const int64 range = next_range;
            if (row + n_splits < end_row) {  // on its way while this row is at work
                next_n = n_records[(row + n_splits) * n_post + post];
                next_range = range_at[row + n_splits];
            }
            if (n == 0) continue;
            const int begin = ranges[range + first_range], end = ranges[range + last_range];
            if (begin == end) continue;
            const int64 events = event_at[row], ticks = tick_at[row];
            Crossing<T> before = {};
            for (int k = 0; k < n; ++k) {
                const Crossing<T> crossing = crossings.get((row * max_spikes + k) * n_post + post, telling);
                for (int i = begin; i < end; ++i) {
                    const int spike_order = by_order[ticks + i], spike_tick = grid ? by_tick[ticks + i] : 0;
                    const T spike_time = telling.straight || !grid ? by_time[events + i] : T(0);
                    // The first crossing that a spike came before has all that is to be said.
                    if (!crossing.is_after(spike_order, spike_tick, spike_time, telling)) continue;
                    if (k > 0 && before.is_after(spike_order, spike_tick, spike_time, telling)) continue;
                    own_sums[(pre[events + i] - begin_pre) * n_threads] +=
                        crossing.share(spike_tick, spike_time, telling, rate, T(1));
                }
                before = crossing;
            }
        }
    }
    __syncthreads();

    // Kingma and Ba (2015), Algorithm 1. As engine.cpu.backward._adam. Neighbouring threads have neighbouring weights.
    const int64 done = mode & ADAM ? (int64)*step * batch : 0;
    const T scale = T(1.0 / (double)min((int64)batch, n_samples - done));
    for (int entry = threadIdx.x; entry < n_inputs * n_columns; entry += n_threads) {
        const Column its = column(entry % n_columns, n_columns, lanes, n_tiles);
        const int i = its.tile * n_inputs + entry / n_columns;
        if (its.network >= n_networks || its.post >= n_post || i >= n_pre) continue;
        T sum = 0;
        for (int split = 0; split < n_splits; ++split)
            sum += sums[entry / n_columns * n_threads + split * n_columns + entry % n_columns];
        const int64 at = ((int64)its.network * n_pre + i) * n_post + its.post;
        if (mode & STORED) sum += gradient[at];
        if (!(mode & ADAM)) {
            gradient[at] = sum;
            continue;
        }
        const double* constants = adam + 3 * its.network;
        const double* rates_now = rates + 2 * ((int64)its.network * n_updates + *step);
        const T beta_1 = T(constants[0]), beta_2 = T(constants[1]), epsilon = T(constants[2]);
        const T g = sum * scale;
        const T m = beta_1 * first_moment[at] + (T(1) - beta_1) * g;
        const T v = beta_2 * second_moment[at] + (T(1) - beta_2) * g * g;
        first_moment[at] = m;
        second_moment[at] = v;
        weights[at] -= T(rates_now[0]) * m / (sqrt(v) * T(rates_now[1]) + epsilon);
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
