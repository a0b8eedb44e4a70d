// Which samples a step takes: one thread a row. Rows past the last sample stay empty; their label is -1.
template <typename T>
__global__ void select_samples(
    const int* step, const int* sample_order, const int* labels, int n_samples, int batch, int n_networks, int n_ranges,
    const int64* first_sample, const int64* first_gridded, const int64* event_start, const int64* tick_start,
    const int64* group_start, const int* n_active_of, int64* event_at, int64* tick_at, int64* group_at, int64* range_at,
    int* n_active, int* label) {
    const int64 row = global_thread();
    if (row >= (int64)n_networks * batch) return;
    const int network = (int)(row / batch);
    const int64 position = (int64)*step * batch + row % batch;
    if (position >= n_samples) {
        event_at[row] = tick_at[row] = group_at[row] = range_at[row] = 0;
        n_active[row] = 0;
        label[row] = -1;
        return;
    }
    const int sample = sample_order ? sample_order[(int64)network * n_samples + position] : (int)position;
    const int64 at = first_sample[network] + sample, gridded = first_gridded[network] + sample;
    event_at[row] = event_start[at];
    range_at[row] = at * (n_ranges + 1);
    tick_at[row] = tick_start[gridded];
    group_at[row] = group_start[gridded];
    n_active[row] = n_active_of[gridded];
    label[row] = labels ? labels[sample] : 0;
}

// The weights of a neuron's inputs, in the order in which they come. Each costs a walk to memory, so they are fetched a
// chunk at a time, and the next chunk is on its way in registers while one lies in shared memory, this thread's column.
template <typename T> struct WeightStream {
    const T* weights;
    const int* neuron;
    T* staged;
    int n_post, n_events, next, stride;
    T ahead[CHUNK];

    __device__ void fetch(int from) {
#pragma unroll
        for (int i = 0; i < CHUNK; ++i)
            ahead[i] = from + i < n_events ? weights[(int64)neuron[from + i] * n_post] : T(0);
    }
    __device__ T take() {
        if (next % CHUNK == 0) {
#pragma unroll
            for (int i = 0; i < CHUNK; ++i) staged[i * stride] = ahead[i];
            fetch(next + CHUNK);
        }
        return staged[next++ % CHUNK * stride];
    }
};

// Where the crossings of one neuron in one row go.
template <typename T> struct Recorder {
    T *time, *slope, *fade, *origin;
    int *tick, *bin, *group, *base;
    int64 at;
    int n_post, n, sent;

    __device__ void add(T t, T x, T s, T start, int sent_tick, int spike_tick, int g, int start_tick) {
        time[at] = t;
        slope[at] = x;
        fade[at] = s;
        origin[at] = start;
        tick[at] = sent_tick;
        bin[at] = spike_tick;
        group[at] = g;
        base[at] = start_tick;
        at += n_post;
        ++n;
        sent += sent_tick >= 0;
    }
};

// One neuron tick by tick: rule clocked. As engine.cpu.forward._simulate_clocked.
template <typename T>
__device__ void simulate_clocked(
    WeightStream<T>& input, const int* first, const int* group_tick, int n_groups, T c, T tau, double delta_t,
    int n_ticks, int max_spikes, Recorder<T>& record, int* counts) {
    if (n_groups == 0) return;
    const T d = T(exp(-delta_t / (double)tau));
    T a = 0, b = 0;
    int g = -1;
    for (int k = group_tick[0]; k <= n_ticks; ++k) {
        if (g >= 0) {
            a *= d * d;
            b *= d;
            if (b - a - c >= T(0) && record.n < max_spikes) {
                double spike_time = k * delta_t;
                T slope = T(1) / T(0);
                const T discriminant = b * b - T(4) * a * c;
                if (discriminant > T(0)) {
                    const T x = sqrt(discriminant);
                    T s = (b + x) / (T(2) * a);
                    if (s > T(0) && s * d < T(1)) {
                        s = s > T(1) ? s : T(1);
                        spike_time -= (double)(tau * log(s));
                        slope = x * s;
                    }
                }
                const double start = group_tick[g] * delta_t;
                record.add(T(spike_time), slope, T(exp((start - spike_time) / (double)tau)), T(0), k, k, g,
                           group_tick[g]);
                b -= c;
                if (record.n >= max_spikes) {
                    ++counts[TRUNCATED];
                    return;
                }
            }
        }
        if (g + 1 < n_groups && group_tick[g + 1] == k) {
            ++g;
            for (int event = first[g]; event < first[g + 1]; ++event) {
                const T weight = input.take();
                a += weight;
                b += weight;
            }
        }
    }
}

// One neuron by the closed form (eq. 8-9). As engine.cpu.forward._simulate, with its order of decisions.
template <typename T>
__device__ void simulate(
    WeightStream<T>& input, const int* first, const int* group_tick, const T* group_time, const T* decay, int n_groups,
    T c, T tau, double delta_t, int rule, int limit_tick, int max_spikes, uint64 noise, int64 first_place,
    Recorder<T>& record, int* counts) {
    const bool grid = delta_t > 0;
    const double ticks_per_second = grid ? 1.0 / delta_t : 0.0;
    const T tiny = T(1e-30);
    T a = 0, b = 0, excess = -c, d = 1;
    int64 own_tick = -1;
    int event = 0;
    // Read one group ahead, as weights are: the walk through groups waits for nothing but itself.
    int next_stop = n_groups ? first[1] : 0;
    T next_end = n_groups ? decay[0] : T(0);
    for (int g = 0; g < n_groups; ++g) {
        const int stop = next_stop;
        const T end = next_end;
        if (g + 1 < n_groups) {
            next_stop = first[g + 2];
            next_end = decay[g + 1];
        }
        T weight = input.take();
        for (++event; event < stop; ++event) weight += input.take();
        a = a * (d * d) + weight;
        b = b * d + weight;
        d = end;
        const T excess_end = (b - a * end) * end - c;
        // Below threshold at the start, and at or above it at the end, or perhaps above it in between.
        const bool may_cross =
            excess < T(0) && (excess_end >= T(0) || (a - c >= T(0) && c - a * (end * end) >= T(0)));
        excess = excess_end;
        if (!may_cross) continue;
        T latest = 1;
        while (true) {
            const T discriminant = b * b - T(4) * a * c;
            if (!(discriminant > T(0))) {
                // The potential only touches the threshold: no crossing, and still below.
                if (excess >= T(0)) excess = -tiny;
                break;
            }
            const T x = sqrt(discriminant);
            T s = (b + x) / (T(2) * a);
            T y = (T(2) * a) / (b + x);
            if (excess >= T(0)) {
                // It ends above, so it has crossed: rounding must not move that out of the interval.
                if (!(s < latest)) {
                    s = latest;
                    y = T(1) / latest;
                } else if (s < end) {
                    s = end;
                    y = T(1) / end;
                }
            } else if (!(end <= s && s < latest)) {
                break;
            }
            const T since = -tau * log(s);
            int64 spike_tick = 0;
            bool collides = false;
            if (grid) {
                const double phase = (double)since * ticks_per_second;
                spike_tick = group_tick[g] + (int64)(phase + GRID_TOLERANCE) + 1;
                collides = own_tick >= 0 && phase - GRID_TOLERANCE <= (double)(own_tick - group_tick[g]);
                if (collides && rule == DROP) {
                    ++counts[DROPPED];
                    break;
                }
            }
            int64 sent_tick = spike_tick;
            if (collides && rule == MERGE) {
                ++counts[MERGED];
                sent_tick = -1;
            } else if (collides && rule == DEFER) {
                ++counts[DEFERRED];
                sent_tick = spike_tick > own_tick + 1 ? spike_tick : own_tick + 1;
                own_tick = sent_tick;
                if (sent_tick > limit_tick) {
                    ++counts[LOST];
                    sent_tick = -1;
                }
            } else {
                own_tick = spike_tick;
            }
            if (noise && grid && sent_tick >= 0) {
                const double random = uniform(noise, first_place + record.n);
                sent_tick += group_tick[g] + (int64)((double)since * ticks_per_second + 0.5 + random) - spike_tick;
            }
            const double start = grid ? group_tick[g] * delta_t : (double)group_time[g];
            record.add(T(start + (double)since), x * s, s, group_time[g], (int)sent_tick, (int)spike_tick, g,
                       group_tick[g]);
            b -= c * y;
            excess = (b - a * end) * end - c;
            if (record.n >= max_spikes) {
                ++counts[TRUNCATED];
                return;
            }
            if (!(excess >= T(0) || b > T(2) * a * end)) break;
            latest = s;
        }
    }
}

// The forward pass of a layer: one thread a neuron and row (eq. 1-9, eq. 14 and the collision rule). Networks that have a
// key in `noise` round their spikes to the grid by random numbers (bats_lab.spikes.grid.discretize_stochastically).
template <typename T>
__global__ void forward(
    const T* weights, const int64* event_at, const int64* group_at, const int* n_active, const int* neuron,
    const int* first, const int* group_tick, const T* group_time, const T* decay, const double* reals,
    const int* integers, const uint64* noise, const int* step, int layer, int n_layers, int n_rows, int batch, int n_pre,
    int n_post, int lanes, int max_spikes, T* time, T* slope, T* fade, T* origin, int* tick, int* bin, int* group,
    int* base, int* n_records, int* sent, int* counters, int* fired) {
    const int64 thread = global_thread();
    const int64 row = thread / lanes;
    const int post = (int)(thread % lanes);
    if (row >= n_rows || post >= n_post) return;
    const int network = (int)(row / batch);
    const double* real = reals + network * N_REALS;
    const int* integer = integers + network * N_INTEGERS;
    const int n_groups = n_active[row];
    const int64 groups = group_at[row];
    // A sample has one entry more in `first` than it has groups, and room for it in all arrays of groups.
    first += groups;
    WeightStream<T> input;
    input.weights = weights + (int64)network * n_pre * n_post + post;
    input.neuron = neuron + event_at[row];
    input.n_post = n_post;
    input.n_events = n_groups ? first[n_groups] : 0;
    SHARED_ARRAY(double, shared);
    input.staged = (T*)shared + threadIdx.x;
    input.stride = blockDim.x;
    input.next = 0;
    input.fetch(0);
    Recorder<T> record = {time, slope, fade, origin, tick, bin, group, base, row * max_spikes * n_post + post, n_post,
                          0, 0};
    int counts[N_COUNTERS] = {0, 0, 0, 0, 0};
    const T c = T(real[C]), tau = T(real[TAU]);
    if (integer[RULE] == CLOCKED)
        simulate_clocked(input, first, group_tick + groups, n_groups, c, tau, real[DELTA_T], integer[N_TICKS],
                         max_spikes, record, counts);
    else {
        uint64 key = noise ? noise[network] : 0;
        if (key) key += KEY_STEP * (uint64)((int64)*step * n_layers + layer);
        simulate(input, first, group_tick + groups, group_time + groups, decay + groups, n_groups, c, tau,
                 real[DELTA_T], integer[RULE], integer[LIMIT_TICK], max_spikes, key,
                 (row % batch * n_post + post) * max_spikes, record, counts);
    }
    n_records[row * n_post + post] = record.n;
    sent[row * n_post + post] = record.sent;
    for (int i = 0; i < N_COUNTERS; ++i)
        if (counts[i]) atomicAdd(counters + row * N_COUNTERS + i, counts[i]);
    if (record.sent) atomicOr(fired + (int64)network * n_post + post, 1);
}
