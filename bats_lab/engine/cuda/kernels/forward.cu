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

// Find the next crossing within `length` of the group, later than `since`, by Newton's method; tell whether there is one.
// It sets its time since the group, s and slope. As engine.cpu.newton.solve_any, whose text derives it.
enum { MAX_STEPS = 100 };
template <typename T>
__device__ bool solve(T a, T b, T c, T tau, T tau_syn, T length, bool ends_above, T& since, T& s, T& slope) {
    T x = since;
    for (int i = 0; i < MAX_STEPS; ++i) {
        const Response<T> now(x, tau, tau_syn);
        const T u = b * now.leak + a * now.spread;
        slope = a * now.syn - u;
        if (!(slope > T(0))) return false;
        const T later = x + tau * (c - u) / slope;
        if (!(later > x && x < length)) {
            if (!ends_above && !(x > since)) return false;
            since = x;
            s = now.leak;
            return true;
        }
        if (later > length && !ends_above) return false;
        x = min(later, length);
    }
    return false;
}

// One neuron tick by tick: rule clocked. As engine.cpu.forward._simulate_clocked.
template <typename T> struct ClockedNeuron {
    T c, tau, tau_syn, d, a, b;
    double delta_t;
    Response<T> fades;
    int max_spikes, tick, start_tick, group;
    bool done;

    __device__ ClockedNeuron(T c, T tau, T tau_syn, double delta_t, int max_spikes)
        : c(c), tau(tau), tau_syn(tau_syn), d(T(exp(-delta_t / (double)tau))), a(0), b(0), delta_t(delta_t),
          max_spikes(max_spikes), tick(0), start_tick(0), group(-1), done(false) {
        if (ANY_RATIO && tau_syn > T(0)) fades = Response<T>(T(delta_t), tau, tau_syn);
    }

    // Go on to a tick, testing the threshold on each.
    __device__ void advance(int until, Recorder<T>& record, int* counts) {
        while (group >= 0 && tick < until && !done) {
            const int k = ++tick;
            double spike_time = k * delta_t;
            T slope = T(1) / T(0);
            if (ANY_RATIO && tau_syn > T(0)) {
                const T a_before = a, b_before = b;
                b = b * fades.leak + a * fades.spread;
                a *= fades.syn;
                if (!(b >= c && record.n < max_spikes)) continue;
                T since = 0, s, x;
                if (b_before < c && solve(a_before, b_before, c, tau, tau_syn, T(delta_t), true, since, s, x)) {
                    spike_time += (double)since - delta_t;
                    slope = x;
                }
                fire(spike_time, slope, k, record, counts);
                continue;
            }
            a *= d * d;
            b *= d;
            if (!(b - a - c >= T(0) && record.n < max_spikes)) continue;
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
            fire(spike_time, slope, k, record, counts);
        }
    }
    __device__ void fire(double spike_time, T slope, int k, Recorder<T>& record, int* counts) {
        record.add(T(spike_time), slope, T(exp((start_tick * delta_t - spike_time) / (double)tau)), T(0), k, k, group,
                   start_tick);
        b -= c;
        if (record.n >= max_spikes) {
            ++counts[TRUNCATED];
            done = true;
        }
    }
    // Take the inputs of a group.
    __device__ void receive(int g, T weight, int group_tick, Recorder<T>& record, int* counts) {
        advance(group_tick, record, counts);
        a += weight;
        if (!(ANY_RATIO && tau_syn > T(0))) b += weight;
        group = g;
        tick = start_tick = group_tick;
    }
};

// One neuron from crossing to crossing (eq. 8-9). As engine.cpu.forward._simulate, with its order of decisions.
template <typename T> struct ExactNeuron {
    T c, tau, tau_syn, a, b, excess, d;
    Response<T> fades;
    double delta_t, ticks_per_second;
    int64 own_tick;
    int rule, limit_tick, max_spikes;
    uint64 noise;
    int64 first_place;
    bool done;

    __device__ ExactNeuron(
        T c, T tau, T tau_syn, double delta_t, int rule, int limit_tick, int max_spikes, uint64 noise,
        int64 first_place)
        : c(c), tau(tau), tau_syn(tau_syn), a(0), b(0), excess(-c), d(1), delta_t(delta_t),
          ticks_per_second(delta_t > 0 ? 1.0 / delta_t : 0.0), own_tick(-1), rule(rule), limit_tick(limit_tick),
          max_spikes(max_spikes), noise(noise), first_place(first_place), done(false) {}

    // Whether there is no closed form.
    __device__ bool newton() const { return ANY_RATIO && tau_syn > T(0); }

    // Take the inputs of a group, and go on to the next one, which is `length` away; `end` is the decay until then.
    __device__ void receive(
        int g, T weight, T end, T length, const int* group_tick, const T* group_time, Recorder<T>& record,
        int* counts) {
        if (newton()) {
            b = b * fades.leak + a * fades.spread;
            a = a * fades.syn + weight;
            fades = Response<T>(length, tau, tau_syn);
            const T u_end = b * fades.leak + a * fades.spread, slope = a - b;
            const bool may_cross =
                excess < T(0) && (u_end >= c || (slope >= T(0) && u_end >= a * fades.syn &&
                                                 b + slope * (length / tau) >= c));
            excess = u_end - c;
            if (may_cross) cross(g, length, group_tick[g], group_time[g], record, counts);
            return;
        }
        a = a * (d * d) + weight;
        b = b * d + weight;
        d = end;
        const T excess_end = (b - a * end) * end - c;
        // Below threshold at the start, and at or above it at the end, or perhaps above it in between.
        const bool may_cross =
            excess < T(0) && (excess_end >= T(0) || (a - c >= T(0) && c - a * (end * end) >= T(0)));
        excess = excess_end;
        if (may_cross) cross(g, length, group_tick[g], group_time[g], record, counts);
    }

    // Find the crossings before the next group.
    __device__ void cross(int g, T length, int start_tick, T start_time, Recorder<T>& record, int* counts) {
        const bool grid = delta_t > 0;
        const T end = d;
        T latest = 1, since = 0;
        while (true) {
            T x, s, y;
            if (newton()) {
                if (!solve(a, b, c, tau, tau_syn, length, excess >= T(0), since, s, x)) {
                    if (excess >= T(0)) excess = -T(1e-30);
                    break;
                }
                y = T(1) / s;
            } else {
                const T discriminant = b * b - T(4) * a * c;
                if (!(discriminant > T(0))) {
                    // The potential only touches the threshold: no crossing, and still below.
                    if (excess >= T(0)) excess = -T(1e-30);
                    break;
                }
                x = sqrt(discriminant);
                s = (b + x) / (T(2) * a);
                y = (T(2) * a) / (b + x);
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
                since = -tau * log(s);
                x *= s;
            }
            int64 spike_tick = 0;
            bool collides = false;
            if (grid) {
                const double phase = (double)since * ticks_per_second;
                spike_tick = start_tick + (int64)(phase + GRID_TOLERANCE) + 1;
                collides = own_tick >= 0 && phase - GRID_TOLERANCE <= (double)(own_tick - start_tick);
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
                sent_tick += start_tick + (int64)((double)since * ticks_per_second + 0.5 + random) - spike_tick;
            }
            const double start = grid ? start_tick * delta_t : (double)start_time;
            record.add(T(start + (double)since), x, s, start_time, (int)sent_tick, (int)spike_tick, g, start_tick);
            b -= c * y;
            bool falls;  // at the end of the interval
            if (newton()) {
                const T u_end = b * fades.leak + a * fades.spread;
                excess = u_end - c;
                falls = u_end > a * fades.syn;
            } else {
                excess = (b - a * end) * end - c;
                falls = b > T(2) * a * end;
            }
            if (record.n >= max_spikes) {
                ++counts[TRUNCATED];
                done = true;
                return;
            }
            if (!(excess >= T(0) || falls)) break;
            latest = s;
        }
    }
};

// Time from a group to the next one, or to the end of the window.
template <typename T>
__device__ T interval(int g, int n_groups, const int* group_tick, const T* group_time, const double* real) {
    const double delta_t = real[DELTA_T];
    const double start = delta_t > 0 ? group_tick[g] * delta_t : (double)group_time[g];
    const double next = g + 1 == n_groups ? real[DURATION]
                        : delta_t > 0     ? group_tick[g + 1] * delta_t
                                          : (double)group_time[g + 1];
    return T(max(next - start, 0.0));
}

// The forward pass of a layer (eq. 1-9, eq. 14 and the collision rule): `n_blocks` blocks a row, each of `n_columns`
// neurons. Each weight costs a walk to memory, so all threads of a block fetch CHUNK of them at once into shared memory,
// those of the input spikes to come; then one thread a neuron takes them up. Networks that have a key in `noise` round
// their spikes to the grid by random numbers (bats_lab.spikes.grid.discretize_stochastically).
template <typename T>
__global__ void forward(
    const T* weights, const int64* event_at, const int64* group_at, const int* n_active, const int* neuron,
    const int* first, const int* group_tick, const T* group_time, const T* decay, const double* reals,
    const int* integers, const uint64* noise, const int* step, int layer, int n_layers, int batch, int n_pre,
    int n_post, int n_blocks, int n_columns, int max_spikes, T* time, T* slope, T* fade, T* origin, int* tick, int* bin,
    int* group, int* base, int* n_records, int* sent, int* counters, int* fired) {
    SHARED_ARRAY(double, shared);
    T* const staged = (T*)shared;  // (event, column)
    const int n_parts = blockDim.x / n_columns, n_staged = CHUNK * n_parts;
    const int own_column = threadIdx.x % n_columns, part = threadIdx.x / n_columns;
    const int64 row = blockIdx.x / n_blocks;
    const int post = (int)(blockIdx.x % n_blocks) * n_columns + own_column;
    const bool exists = post < n_post, walks = exists && part == 0;
    const int network = (int)(row / batch);
    const double* real = reals + network * N_REALS;
    const int* integer = integers + network * N_INTEGERS;
    const int n_groups = n_active[row];
    // A sample has one entry more in `first` than it has groups, and room for it in all arrays of groups.
    first += group_at[row], group_tick += group_at[row], group_time += group_at[row], decay += group_at[row];
    const int n_events = n_groups ? first[n_groups] : 0;
    neuron += event_at[row];
    weights += (int64)network * n_pre * n_post + post;
    Recorder<T> record = {time, slope, fade, origin, tick, bin, group, base, row * max_spikes * n_post + post, n_post,
                          0, 0};
    int counts[N_COUNTERS] = {0, 0, 0, 0, 0};
    uint64 key = noise ? noise[network] : 0;
    if (key) key += KEY_STEP * (uint64)((int64)*step * n_layers + layer);
    const bool clocked = integer[RULE] == CLOCKED;
    const T c = T(real[C]), tau = T(real[TAU]), tau_syn = T(real[TAU_SYN]);
    ClockedNeuron<T> ticking(c, tau, tau_syn, real[DELTA_T], max_spikes);
    ExactNeuron<T> exact(c, tau, tau_syn, real[DELTA_T], integer[RULE], integer[LIMIT_TICK], max_spikes, key,
                         (row % batch * n_post + post) * max_spikes);
    int g = 0, next_stop = n_groups ? first[1] : 0;
    T weight = 0, next_end = n_groups ? decay[0] : T(0);
    for (int begin = 0; begin < n_events; begin += n_staged) {
        T fetched[CHUNK];
#pragma unroll
        for (int i = 0; i < CHUNK; ++i) {
            const int event = begin + part + i * n_parts;
            fetched[i] = exists && event < n_events ? weights[(int64)neuron[event] * n_post] : T(0);
        }
        __syncthreads();  // what lay there before has been taken up
#pragma unroll
        for (int i = 0; i < CHUNK; ++i) staged[(part + i * n_parts) * n_columns + own_column] = fetched[i];
        __syncthreads();
        if (!walks || exact.done || ticking.done) continue;
        const int end_staged = min(begin + n_staged, n_events);
        for (int event = begin; event < end_staged;) {
            const int stop = min(next_stop, end_staged);
            for (; event < stop; ++event) weight += staged[(event - begin) * n_columns + own_column];
            if (event < next_stop) break;
            const T end = next_end;
            if (g + 1 < n_groups) {  // read one group ahead: the walk waits for nothing but itself
                next_stop = first[g + 2];
                next_end = decay[g + 1];
            }
            if (clocked)
                ticking.receive(g, weight, group_tick[g], record, counts);
            else
                exact.receive(g, weight, end, exact.newton() ? interval(g, n_groups, group_tick, group_time, real) : T(0),
                              group_tick, group_time, record, counts);
            if (exact.done || ticking.done) break;
            ++g;
            weight = 0;
        }
    }
    if (!walks) return;
    if (clocked) ticking.advance(integer[N_TICKS], record, counts);
    n_records[row * n_post + post] = record.n;
    sent[row * n_post + post] = record.sent;
    for (int i = 0; i < N_COUNTERS; ++i)
        if (counts[i]) atomicAdd(counters + row * N_COUNTERS + i, counts[i]);
    if (record.sent) atomicOr(fired + (int64)network * n_post + post, 1);
}
