// What the kernels share. They are joined to one source, in the order of cuda.device.SOURCES, and compiled by NVRTC
// without any header; before them come the names of the collision rules and GRID_TOLERANCE, from bats_lab.spikes, and
// ANY_RATIO: whether neurons may have other time constants than those with the closed form, tau = 2 tau_syn. Every
// kernel is a template on the scalar type T, float or double.
//
// A *row* is one sample of one network: row = network * batch + i. The crossings of a row lie in arrays
// (row, slot, neuron), so that neighbouring threads, which are neighbouring neurons, read neighbouring words. Input
// spikes lie in two orders: by the time at which they are sent, for the forward pass, and by the neuron that sent
// them, for the gradient. No thread adds to a float that another one adds to: sums have one order, and with it one
// result. Only integers are counted with atomics.

#ifndef SHARED_ARRAY
#define SHARED_ARRAY(type, name) extern __shared__ type name[]
#endif

typedef long long int64;
typedef unsigned long long uint64;

// Columns of the counters of a row, and of a layer's totals, which has the spikes sent besides.
enum { DROPPED, MERGED, DEFERRED, LOST, TRUNCATED, N_COUNTERS, SENT = N_COUNTERS, N_TOTALS };

// Columns of what differs between networks in a layer: floats and integers.
// c = threshold / tau; seconds; exp(-2 pi width) of the surrogate of the time grid, 0: none; the synapse's constant, 0:
// crossings have the closed form; tau of the layer that the spikes go to.
enum { C, TAU, DELTA_T, DURATION, SURROGATE, TAU_SYN, TAU_NEXT, N_REALS };
// Last tick in the window; last one on which rule defer sends; whether an input came before a crossing if it was *sent*
// before it, in place of if it *crossed* before it (bats_lab.spikes.estimators.Estimator).
enum { RULE, N_TICKS, LIMIT_TICK, BY_SENT, N_INTEGERS };

// Input neurons of one entry of the table that says where the spikes of a neuron begin.
enum { ROWS_PER_RANGE = 16 };

// Weights that a thread of the forward pass fetches at once, and threads of a warp.
enum { CHUNK = 16 };
#ifndef LANES
#define LANES 32
#endif

#define PI 3.14159265358979323846

template <typename T> struct Key;
template <> struct Key<float> {
    typedef unsigned int type;
    static __device__ type of(float time) { return __float_as_uint(time); }
};
template <> struct Key<double> {
    typedef uint64 type;
    static __device__ type of(double time) { return (uint64)__double_as_longlong(time); }
};

template <typename T> __device__ inline bool is_finite(T value) { return value - value == T(0); }

// Random numbers in [0, 1), always the same for the same key and place. As engine.cpu.forward._mixed.
__device__ inline uint64 mixed(uint64 value) {
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ULL;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBULL;
    return value ^ (value >> 31);
}
__device__ inline double uniform(uint64 key, int64 place) {
    return (double)(mixed(mixed(key) + (uint64)place) >> 40) * (1.0 / 16777216.0);
}

// Keys of the random numbers of two batches, or layers, are this far apart (bats_lab.engine.noise_key).
#define KEY_STEP 0x9E3779B97F4A7C15ULL

__device__ inline int64 global_thread() { return (int64)blockIdx.x * blockDim.x + threadIdx.x; }

// Sum of `value` over the threads before this one; `total` is that over all. For all threads of a block at once.
__device__ inline int exclusive_scan(int value, int* scan, int* total) {
    const int i = threadIdx.x;
    scan[i] = value;
    __syncthreads();
    for (int offset = 1; offset < (int)blockDim.x; offset *= 2) {
        const int before = i >= offset ? scan[i - offset] : 0;
        __syncthreads();
        scan[i] += before;
        __syncthreads();
    }
    *total = scan[blockDim.x - 1];
    const int sum = scan[i] - value;
    __syncthreads();
    return sum;
}

// What an interval x leaves of the potential and of the current, and what the current has added to the potential:
// exp(-x/tau), exp(-x/tau_syn) and K(x)/tau of engine.cpu.newton.response.
template <typename T> struct Response {
    T leak, syn, spread;

    __device__ Response() : leak(1), syn(1), spread(0) {}
    __device__ Response(T x, T tau, T tau_syn) {
        const T leak_rate = T(1) / tau, syn_rate = T(1) / tau_syn;
        const T low = min(leak_rate, syn_rate), gap = max(leak_rate, syn_rate) - low;
        const T slow = exp(-low * x), fast = slow * exp(-gap * x);
        spread = slow * leak_rate * (gap > T(0) ? -expm1(-gap * x) / gap : x);
        leak = leak_rate <= syn_rate ? slow : fast;
        syn = leak_rate <= syn_rate ? fast : slow;
    }
};
