// The spikes a row sends, in order of time, for the next layer: one block a row, a power of two of threads.
//
// The spikes of a neuron are in order already. They are collected neuron by neuron and merged in runs of doubled
// length, in shared memory if they fit there (`n_shared`), else in the arrays that are written last. Equal times
// stay in the order of neurons. Then spikes that are sent at one time form a group.
template <typename T>
__global__ void order_spikes(
    const T* time, const int* tick, const int* bin, const int* n_records, const int* sent, const int* counters,
    const double* reals, const int* integers, int batch, int n_post, int max_spikes, int n_shared, int n_ranges,
    int* n_sent, int* neuron, T* sent_time, int* sent_tick, int* pre, T* by_time, int* by_tick, int* by_order,
    int* target, int* first, int* group_tick, T* group_time, T* decay, int* n_active, int* ranges, double* delay,
    uint64* totals) {
    typedef typename Key<T>::type K;
    SHARED_ARRAY(double, shared);
    double* partial = shared;
    int* scan = (int*)(partial + blockDim.x);
    int* last_active = scan + blockDim.x;
    const int thread = threadIdx.x, n_threads = blockDim.x;
    const int64 row = blockIdx.x;
    const int network = (int)(row / batch);
    const double* real = reals + network * N_REALS;
    const int* integer = integers + network * N_INTEGERS;
    const double delta_t = real[DELTA_T], duration = real[DURATION];
    const bool grid = delta_t > 0, by_bin = grid && integer[RULE] == DEFER && !integer[BY_SENT];
    const int capacity = n_post * max_spikes;
    const int64 records = row * capacity, groups = row * (capacity + 1);
    time += records, tick += records, bin += records;
    neuron += records, sent_time += records, sent_tick += records;
    pre += records, by_time += records, by_tick += records, by_order += records, target += records;
    first += groups, group_tick += groups, group_time += groups, decay += groups;
    ranges += row * (n_ranges + 1);

    // How many spikes come before those of this thread's neurons.
    const int share = (n_post + n_threads - 1) / n_threads;
    const int begin_post = min(thread * share, n_post), end_post = min(begin_post + share, n_post);
    int own = 0, n = 0;
    for (int j = begin_post; j < end_post; ++j) own += sent[row * n_post + j];
    int at = exclusive_scan(own, scan, &n);

    const bool fits = n <= n_shared;
    K* key = fits ? (K*)(last_active + 2) : (K*)sent_time;
    K* other_key = fits ? key + n_shared : (K*)by_time;
    int* index = fits ? (int*)(other_key + n_shared) : neuron;
    int* other_index = fits ? index + n_shared : pre;
    for (int j = begin_post; j < end_post; ++j) {
        if (j % ROWS_PER_RANGE == 0) ranges[j / ROWS_PER_RANGE] = at;
        const int n_slots = n_records[row * n_post + j];
        for (int slot = 0; slot < n_slots; ++slot) {
            const int record = slot * n_post + j;
            if (tick[record] < 0) continue;
            key[at] = grid ? (K)tick[record] : Key<T>::of(time[record]);
            index[at] = at;
            target[at] = record;
            ++at;
        }
    }
    if (thread == 0) {
        ranges[n_ranges] = n;
        n_sent[row] = n;
        *last_active = 0;
        for (int i = 0; i < N_COUNTERS; ++i) {
            const int count = counters[row * N_COUNTERS + i];
            if (count) atomicAdd(totals + network * N_TOTALS + i, (uint64)count);
        }
        if (n) atomicAdd(totals + network * N_TOTALS + SENT, (uint64)n);
    }
    __syncthreads();

    for (int width = 1; width < n; width *= 2) {
        for (int i = thread; i < n; i += n_threads) {
            const int left = i / (2 * width) * (2 * width);
            const int middle = min(left + width, n), right = min(left + 2 * width, n);
            const bool in_left = i < middle;
            // Spikes of the other run that go before this one: of equal ones those of the left run.
            int low = in_left ? middle : left, high = in_left ? right : middle;
            const int from = low;
            const K own_key = key[i];
            while (low < high) {
                const int half = (low + high) / 2;
                if (in_left ? key[half] < own_key : key[half] <= own_key)
                    low = half + 1;
                else
                    high = half;
            }
            const int place = (in_left ? i : left + i - middle) + low - from;
            other_key[place] = own_key;
            other_index[place] = index[i];
        }
        __syncthreads();
        K* const swapped_key = key;
        key = other_key;
        other_key = swapped_key;
        int* const swapped_index = index;
        index = other_index;
        other_index = swapped_index;
    }
    if (!fits && index != neuron) {
        // What was sorted must lie where each thread below overwrites no place but its own.
        for (int i = thread; i < n; i += n_threads) {
            other_key[i] = key[i];
            other_index[i] = index[i];
        }
        __syncthreads();
        key = other_key;
        index = other_index;
    }

    // Groups: each thread takes a stretch of spikes, after it knows how many groups begin before it.
    const int stretch = (n + n_threads - 1) / n_threads;
    const int begin = min(thread * stretch, n), end = min(begin + stretch, n);
    int n_begun = 0, n_groups = 0;
    for (int i = begin; i < end; ++i) n_begun += i == 0 || key[i] != key[i - 1];
    int g = exclusive_scan(n_begun, scan, &n_groups) - 1;
    for (int i = begin; i < end; ++i) {
        const int source = index[i], record = target[source];
        if (i == 0 || key[i] != key[i - 1]) {
            ++g;
            first[g] = i;
            group_tick[g] = grid ? tick[record] : 0;
            group_time[g] = time[record];
            if (grid ? tick[record] <= integer[N_TICKS] : (double)time[record] <= duration)
                atomicMax(last_active, g + 1);
        }
        by_order[source] = by_bin ? bin[record] : g;
    }
    if (thread == 0) first[n_groups] = n;
    __syncthreads();

    const int active = *last_active;
    if (thread == 0) n_active[row] = active;
    for (int i = thread; i < n_groups; i += n_threads) {
        const double start = grid ? group_tick[i] * delta_t : (double)group_time[i];
        double stop = duration;
        if (i + 1 < n_groups && i + 1 != active)
            stop = grid ? group_tick[i + 1] * delta_t : (double)group_time[i + 1];
        decay[i] = T(exp(-max(stop - start, 0.0) / (double)T(real[TAU_NEXT])));
    }
    double waited = 0;
    for (int i = thread; i < n; i += n_threads) {
        const int source = index[i], record = target[source];
        const int j = record % n_post, sent_on = tick[record];
        const T t = time[record];
        neuron[i] = j;
        sent_time[i] = t;
        sent_tick[i] = sent_on;
        pre[source] = j;
        by_time[source] = t;
        by_tick[source] = sent_on;
        if (grid) waited += sent_on * delta_t - (double)t;
    }
    partial[thread] = waited;
    __syncthreads();
    for (int half = n_threads / 2; half > 0; half /= 2) {
        if (thread < half) partial[thread] += partial[thread + half];
        __syncthreads();
    }
    if (thread == 0) delay[row] = partial[0];
}
