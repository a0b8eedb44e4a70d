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

// What is known of a crossing when an input spike asks whether it came before it.
template <typename T> struct Crossing {
    T time, f, h, origin;
    int bin, order, base;

    // What was sent up to the group before the crossing came before it for sure. Where continuous times decide
    // (`straight`: straight-through on a grid, eq. 15-16), of the next group that which left on no later tick may have.
    // With `by_bin` (rule defer, which sends later) `order` is the tick of eq. 14 in place of the group.
    __device__ bool is_after(int spike_order, int spike_tick, T spike_time, bool straight, bool by_bin) const {
        return spike_order <= order || (straight && spike_order == order + 1 && (by_bin || spike_tick <= bin) &&
                                        spike_time < time);
    }
};

template <typename T> struct Crossings {
    const T *time, *f, *h, *origin;
    const int *bin, *group, *base;

    __device__ Crossing<T> get(int64 at, bool by_bin) const {
        Crossing<T> crossing;
        crossing.time = time[at];
        crossing.f = f[at];
        crossing.h = h[at];
        crossing.origin = origin[at];
        crossing.bin = bin[at];
        crossing.base = base[at];
        crossing.order = by_bin ? crossing.bin - 1 : group[at];
        return crossing;
    }
};

// Errors of the spikes of the layer below, which are this layer's inputs (eq. 13, first sum): `n_threads` threads a row,
// each of which takes a spike after the other. They go to the crossings that sent the spikes.
template <typename T>
__global__ void input_errors(
    const T* weights, const int* n_sent, const int* pre, const T* by_time, const int* by_tick, const int* by_order,
    const int* target, int room, const T* time, const T* f, const T* h, const T* origin, const int* bin,
    const int* group, const int* base, const int* n_records, const double* reals, const int* integers, int n_rows,
    int batch, int n_pre, int n_post, int max_spikes, int n_threads, T* errors) {
    const int64 thread = global_thread();
    const int64 row = thread / n_threads;
    if (row >= n_rows) return;
    const int network = (int)(row / batch);
    const double delta_t = reals[network * N_REALS + DELTA_T];
    const T tau = T(reals[network * N_REALS + TAU]);
    const double q = reals[network * N_REALS + SURROGATE];
    const bool grid = delta_t > 0, straight = grid && !integers[network * N_INTEGERS + BY_SENT];
    const bool by_bin = straight && integers[network * N_INTEGERS + RULE] == DEFER;
    const T rate = T((grid ? delta_t : 1.0) / (double)tau);
    const Crossings<T> crossings = {time, f, h, origin, bin, group, base};
    const int64 events = row * room, records = row * max_spikes * n_post;
    n_records += row * n_post;
    weights += (int64)network * n_pre * n_post;
    for (int i = (int)(thread % n_threads); i < n_sent[row]; i += n_threads) {
        const int spike_order = by_order[events + i], spike_tick = by_tick[events + i];
        const T spike_time = by_time[events + i];
        const T* weight = weights + (int64)pre[events + i] * n_post;
        T sum = 0;
        for (int post = 0; post < n_post; ++post) {
            const int n = n_records[post];
            for (int k = 0; k < n; ++k) {
                const Crossing<T> crossing = crossings.get(records + (int64)k * n_post + post, by_bin);
                if (!crossing.is_after(spike_order, spike_tick, spike_time, straight, by_bin)) continue;
                const T distance = grid ? T(spike_tick - crossing.base) : spike_time - crossing.origin;
                const T e = exp(distance * rate);
                sum += weight[post] * ((T(2) * crossing.f * e - crossing.h) * e);
                break;
            }
        }
        sum /= tau;
        // The surrogate's slope where the spike crossed: bats_lab.spikes.grid.surrogate_slope.
        if (grid && q > 0)
            sum *= T((1.0 - q * q) / (1.0 - 2.0 * q * cos(2.0 * PI * ((double)spike_time / delta_t)) + q * q));
        errors[events + target[events + i]] = sum;
    }
}

// The weight gradient of a batch (eq. 12) and, in the same pass, Adam. One thread a neuron and `n_inputs` of its
// inputs, a multiple of ROWS_PER_RANGE; each entry is summed by one thread over samples, crossings and spikes in
// order, in shared memory, and never goes through memory: with ADAM. Without it, it is added to `gradient`.
enum { STORED = 1, ADAM = 2 };  // begin with what is in `gradient`; update weights and leave `gradient` cleared
template <typename T>
__global__ void update(
    const int64* event_at, const int64* tick_at, const int64* range_at, const int* pre, const T* by_time,
    const int* by_tick, const int* by_order, const int* ranges, int n_ranges, const T* time, const T* f, const T* h,
    const T* origin, const int* bin, const int* group, const int* base, const int* n_records, const double* reals,
    const int* integers, int n_networks, int batch, int n_samples, int n_pre, int n_post, int lanes, int max_spikes,
    int n_inputs, int hidden_inputs, int visit, int mode, const int* step, const double* adam, const double* rates,
    int n_updates, T* gradient, T* first_moment, T* second_moment, T* weights) {
    SHARED_ARRAY(double, shared);
    T* sums = (T*)shared + threadIdx.x;
    const int stride = blockDim.x;
    const int n_tiles = (n_pre + n_inputs - 1) / n_inputs;
    const int64 thread = global_thread();
    const int post = (int)(thread % lanes), tile = (int)(thread / lanes % n_tiles);
    const int network = (int)(thread / lanes / n_tiles);
    if (network >= n_networks || post >= n_post) return;
    const int begin_pre = tile * n_inputs, end_pre = min(begin_pre + n_inputs, n_pre);
    const int64 own_weights = ((int64)network * n_pre + begin_pre) * n_post + post;
    for (int i = 0; i < end_pre - begin_pre; ++i)
        sums[i * stride] = mode & STORED ? gradient[own_weights + (int64)i * n_post] : T(0);

    const double delta_t = reals[network * N_REALS + DELTA_T];
    const bool grid = delta_t > 0, straight = grid && !integers[network * N_INTEGERS + BY_SENT];
    const bool by_bin = hidden_inputs && straight && integers[network * N_INTEGERS + RULE] == DEFER;
    const T rate = T((grid ? delta_t : 1.0) / (double)T(reals[network * N_REALS + TAU]));
    const Crossings<T> crossings = {time, f, h, origin, bin, group, base};
    const int per_tile = n_inputs / ROWS_PER_RANGE;
    const int64 first_row = (int64)network * batch, end_row = visit ? first_row + batch : first_row;
    int next_n = visit ? n_records[first_row * n_post + post] : 0;
    for (int64 row = first_row; row < end_row; ++row) {
        const int n = next_n;
        if (row + 1 < end_row) next_n = n_records[(row + 1) * n_post + post];  // on its way while this row is at work
        if (n == 0) continue;
        const int* range = ranges + range_at[row];
        const int begin = range[tile * per_tile], end = range[min((tile + 1) * per_tile, n_ranges)];
        const int64 events = event_at[row], ticks = tick_at[row];
        Crossing<T> before;
        for (int k = 0; k < n; ++k) {
            const Crossing<T> crossing = crossings.get((row * max_spikes + k) * n_post + post, by_bin);
            for (int i = begin; i < end; ++i) {
                const int spike_order = by_order[ticks + i], spike_tick = by_tick[ticks + i];
                const T spike_time = by_time[events + i];
                // The first crossing that a spike came before has all that is to be said.
                if (!crossing.is_after(spike_order, spike_tick, spike_time, straight, by_bin)) continue;
                if (k > 0 && before.is_after(spike_order, spike_tick, spike_time, straight, by_bin)) continue;
                const T distance = grid ? T(spike_tick - crossing.base) : spike_time - crossing.origin;
                const T e = exp(distance * rate);
                sums[(pre[events + i] - begin_pre) * stride] += (crossing.f * e - crossing.h) * e;
            }
            before = crossing;
        }
    }

    if (!(mode & ADAM)) {
        for (int i = 0; i < end_pre - begin_pre; ++i) gradient[own_weights + (int64)i * n_post] = sums[i * stride];
        return;
    }
    // Kingma and Ba (2015), Algorithm 1. As engine.cpu.backward._adam.
    const int64 done = (int64)*step * batch;
    const T scale = T(1.0 / (double)min((int64)batch, n_samples - done));
    const T beta_1 = T(adam[3 * network]), beta_2 = T(adam[3 * network + 1]), epsilon = T(adam[3 * network + 2]);
    const double* rates_now = rates + 2 * ((int64)network * n_updates + *step);
    const T step_size = T(rates_now[0]), root_scale = T(rates_now[1]);
    for (int i = 0; i < end_pre - begin_pre; ++i) {
        const int64 at = own_weights + (int64)i * n_post;
        const T g = sums[i * stride] * scale;
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
