// What the output spikes of a row say: loss and errors (eq. 10), the decision and when it fell. One thread a row.
// As engine.cpu.read_out.
template <typename T>
__global__ void read_out(
    const int* sent, const int* n_sent, const int* neuron, const T* sent_time, const int* sent_tick,
    const double* reals, const int* label, const double* targets, const double* latency_times, int n_times, int n_rows,
    int batch, int n_post, int max_spikes, int* so_far, T* errors, int* predicted, double* loss, int* spikes_by,
    double* first_time, double* decision_time, uint64* spikes_by_total, uint64* confusion) {
    const int64 row = global_thread();
    if (row >= n_rows) return;
    const int network = (int)(row / batch), truth = label[row], n = n_sent[row];
    if (truth < 0) return;
    const double delta_t = reals[network * N_REALS + DELTA_T];
    const double target_true = targets[2 * network], target_false = targets[2 * network + 1];
    const int64 events = row * n_post * max_spikes;
    neuron += events, sent_time += events, sent_tick += events;
    sent += row * n_post, so_far += row * n_post, errors += row * n_post, spikes_by += row * n_times;
    double sum = 0;
    int best = 0;
    for (int j = 0; j < n_post; ++j) {
        const double error = (j == truth ? target_true : target_false) - sent[j];
        errors[j] = T(error);
        sum += 0.5 * error * error;
        if (sent[j] > sent[best]) best = j;
        so_far[j] = 0;
    }
    loss[row] = sum;
    predicted[row] = n ? best : -1;
    for (int s = 0; s < n_times; ++s) spikes_by[s] = 0;
    const double nothing = 0.0 / 0.0;
    double decided = nothing;
    int leader = 0;
    bool leads = false;
    for (int event = 0; event < n; ++event) {
        const double at = delta_t > 0 ? sent_tick[event] * delta_t : (double)sent_time[event];
        if (event == 0) first_time[row] = at;
        const int j = neuron[event];
        ++so_far[j];
        if (so_far[j] > so_far[leader] || (so_far[j] == so_far[leader] && j < leader)) leader = j;
        if (j == truth)
            for (int s = 0; s < n_times; ++s) spikes_by[s] += at <= latency_times[s] + GRID_TOLERANCE * delta_t;
        if (event + 1 < n && (delta_t > 0 ? sent_tick[event + 1] == sent_tick[event]
                                          : sent_time[event + 1] == sent_time[event]))
            continue;
        if (leader != best) {
            leads = false;
        } else if (!leads) {
            leads = true;
            decided = at;
        }
    }
    if (n == 0) first_time[row] = nothing;
    decision_time[row] = decided;
    for (int s = 0; s < n_times; ++s)
        if (spikes_by[s]) atomicAdd(spikes_by_total + network * n_times + s, (uint64)spikes_by[s]);
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
    for (int i = 0; i < n; ++i) {
        const double value = values[first_row + i];
        // A sample without output spikes has no first one and no decision.
        if (value == value) sum += value;
    }
    sums[thread] = sum;
    if (thread == 0) ++*step;
}
