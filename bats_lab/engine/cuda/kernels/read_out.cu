// What the output spikes of a row say: loss and errors (eq. 10), the decision and when it fell. One block a row: its
// first thread follows the race of the classes. As engine.cpu.read_out.
template <typename T>
__global__ void read_out(
    const int* sent, const int* n_sent, const int* neuron, const T* sent_time, const int* sent_tick,
    const double* reals, const int* label, const double* targets, const double* latency_times, int n_times, int batch,
    int n_post, int max_spikes, T* errors, int* predicted, double* loss, int* spikes_by, double* first_time,
    double* decision_time, uint64* spikes_by_total, uint64* confusion) {
    SHARED_ARRAY(double, shared);
    int* const so_far = (int*)shared;
    const int64 row = blockIdx.x;
    const int network = (int)(row / batch), truth = label[row], n = n_sent[row];
    if (truth < 0) return;
    const double delta_t = reals[network * N_REALS + DELTA_T];
    const double target_true = targets[2 * network], target_false = targets[2 * network + 1];
    const int64 events = row * n_post * max_spikes;
    neuron += events, sent_time += events, sent_tick += events;
    sent += row * n_post, errors += row * n_post;
    for (int j = threadIdx.x; j < n_post; j += blockDim.x) {
        errors[j] = T((j == truth ? target_true : target_false) - sent[j]);
        so_far[j] = 0;
    }
    for (int s = threadIdx.x; s < n_times; s += blockDim.x) {
        const double until = latency_times[s] + GRID_TOLERANCE * delta_t;
        int count = 0;
        for (int event = 0; event < n; ++event) {
            const double at = delta_t > 0 ? sent_tick[event] * delta_t : (double)sent_time[event];
            count += neuron[event] == truth && at <= until;
        }
        spikes_by[row * n_times + s] = count;
        if (count) atomicAdd(spikes_by_total + network * n_times + s, (uint64)count);
    }
    __syncthreads();
    if (threadIdx.x > 0) return;

    double sum = 0;
    int best = 0;
    for (int j = 0; j < n_post; ++j) {
        const double error = (j == truth ? target_true : target_false) - sent[j];
        sum += 0.5 * error * error;
        if (sent[j] > sent[best]) best = j;
    }
    loss[row] = sum;
    predicted[row] = n ? best : -1;
    const double nothing = 0.0 / 0.0;
    double decided = nothing, next_at = nothing;
    int leader = 0, most = 0;
    bool leads = false;
    for (int event = 0; event < n; ++event) {
        const double at = event ? next_at : delta_t > 0 ? sent_tick[0] * delta_t : (double)sent_time[0];
        if (event == 0) first_time[row] = at;
        const int j = neuron[event], count = ++so_far[j];
        if (count > most || (count == most && j < leader)) leader = j, most = count;
        if (event + 1 < n) {
            next_at = delta_t > 0 ? sent_tick[event + 1] * delta_t : (double)sent_time[event + 1];
            if (next_at == at) continue;
        }
        if (leader != best) {
            leads = false;
        } else if (!leads) {
            leads = true;
            decided = at;
        }
    }
    if (n == 0) first_time[row] = nothing;
    decision_time[row] = decided;
    const int column = n ? best : n_post;
    atomicAdd(confusion + ((int64)network * n_post + truth) * (n_post + 1) + column, (uint64)1);
}

// Add what a step measured in floats to its network's sums, sample by sample, and go on to the next step. One thread
// a network and sum: loss, first spike, decision, and the delays of each layer (layer, row).
template <typename T>
__global__ void finish_step(
    const int* label, const double* loss, const double* first_time, const double* decision_time, const double* delays,
    int n_networks, int batch, int n_rows_of_delays, int n_layers, double* sums, int* step) {
    const int n_sums = 3 + n_layers;
    const int64 thread = global_thread();
    if (thread >= (int64)n_networks * n_sums) return;
    const int network = (int)(thread / n_sums), which = (int)(thread % n_sums);
    const double* values = which == 0   ? loss
                           : which == 1 ? first_time
                           : which == 2 ? decision_time
                                        : delays + (int64)(which - 3) * n_rows_of_delays;
    const int64 first_row = (int64)network * batch;
    int n = batch;
    while (n > 0 && label[first_row + n - 1] < 0) --n;  // rows past the last sample
    double sum = sums[thread];
#pragma unroll 8
    for (int i = 0; i < n; ++i) {
        const double value = values[first_row + i];
        sum += value == value ? value : 0.0;  // a sample without output spikes has no first one and no decision
    }
    sums[thread] = sum;
    if (thread == 0) ++*step;
}
