// What the kernels use of CUDA C++, on the CPU, for tests: threads run one after the other on one core, in an order
// shuffled by a seed. A kernel without barriers is a plain loop over its threads. In one with barriers each thread
// of a block is a fibre that runs from barrier to barrier; threads of a block that do not all come to the same
// barrier are an error, as on a GPU. Shared memory is poisoned before each block, since a GPU does not clear it.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

struct Index3 {
    unsigned x = 0;
};
static Index3 threadIdx, blockIdx, blockDim, gridDim;

#define __global__ static
#define __device__
#ifdef LANES_OF_PTX
#define LANES LANES_OF_PTX
#else
#define LANES 4
#endif
#define SHARED_ARRAY(type, name) type* name = reinterpret_cast<type*>(emulator::shared.data())

using std::exp;
using std::expm1;
using std::log;
using std::max;
using std::min;
using std::sqrt;

inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline long long __double_as_longlong(double value) {
    long long bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
template <class T, class U> inline T atomicAdd(T* place, U value) {
    const T old = *place;
    *place = old + T(value);
    return old;
}
template <class T, class U> inline T atomicMax(T* place, U value) {
    const T old = *place;
    *place = std::max(old, T(value));
    return old;
}
template <class T, class U> inline T atomicOr(T* place, U value) {
    const T old = *place;
    *place = old | T(value);
    return old;
}

namespace emulator {

static std::vector<double> shared;

struct Fibre {
    ucontext_t context;
    jmp_buf point;
    std::unique_ptr<char[]> stack;
    unsigned thread = 0;
    int barrier = 0;  // line of the barrier it waits at, negative for one of its warp; 0: none
    bool begun = false, ended = false;
};

static std::vector<Fibre> fibres;
static std::function<void()> body;
static Fibre* current = nullptr;
static jmp_buf scheduler;
static ucontext_t main_context;
// What is to be done when threads from `begin` on have met at a barrier, and the number of a launch's first block.
static void (*released)(unsigned begin, unsigned end) = nullptr;
static unsigned first_block = 0;

inline void enter() {
    body();
    current->barrier = 0;
    current->ended = true;
    _longjmp(scheduler, 1);
}

// Run a fibre up to its next barrier or its end. Switching by _setjmp saves the system call of swapcontext.
inline void resume(Fibre& fibre) {
    current = &fibre;
    threadIdx.x = fibre.thread;
    if (_setjmp(scheduler)) return;
    if (fibre.begun) _longjmp(fibre.point, 1);
    fibre.begun = true;
    setcontext(&fibre.context);
}

inline void wait(int line) {
    current->barrier = line;
    if (!_setjmp(current->point)) _longjmp(scheduler, 1);
}

inline std::vector<unsigned> shuffled(unsigned n, std::mt19937& random) {
    std::vector<unsigned> order(n);
    for (unsigned i = 0; i < n; ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random);
    return order;
}

inline int run_block_with_barriers(unsigned n_threads, std::mt19937& random) {
    constexpr size_t stack_size = 64 << 10;
    if (fibres.size() < n_threads) fibres.resize(n_threads);
    for (unsigned i = 0; i < n_threads; ++i) {
        Fibre& fibre = fibres[i];
        fibre.thread = i;
        fibre.begun = fibre.ended = false;
        fibre.barrier = 0;
        if (!fibre.stack) fibre.stack.reset(new char[stack_size]);
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack.get();
        fibre.context.uc_stack.ss_size = stack_size;
        fibre.context.uc_link = &main_context;
        makecontext(&fibre.context, enter, 0);
    }
    // Whether some fibres from `begin` on have come to one barrier, or all to their end.
    const auto together = [&](unsigned begin, unsigned end) {
        for (unsigned i = begin + 1; i < end; ++i)
            if (fibres[i].ended != fibres[begin].ended || fibres[i].barrier != fibres[begin].barrier) return false;
        return true;
    };
    while (true) {
        for (unsigned i : shuffled(n_threads, random))
            if (!fibres[i].barrier && !fibres[i].ended) resume(fibres[i]);
        bool goes_on = false;
        for (unsigned warp = 0; warp < n_threads; warp += LANES) {
            const unsigned end = std::min(warp + LANES, n_threads);
            if (!together(warp, end)) return 1;
            if (fibres[warp].barrier >= 0) continue;
            if (released) released(warp, end);
            for (unsigned i = warp; i < end; ++i) fibres[i].barrier = 0, goes_on = true;
        }
        if (goes_on) continue;
        if (!together(0, n_threads)) return 1;
        if (fibres[0].ended) return 0;
        if (released) released(0, n_threads);
        for (unsigned i = 0; i < n_threads; ++i) fibres[i].barrier = 0;
    }
}

// Launch a kernel; 0, or 1 if its threads came to different barriers.
template <class Function>
int launch(unsigned n_blocks, unsigned n_threads, unsigned shared_bytes, unsigned seed, bool barriers, Function run) {
    std::mt19937 random(seed);
    gridDim.x = n_blocks;
    blockDim.x = n_threads;
    shared.resize(shared_bytes / sizeof(double) + 1);
    body = run;
    for (unsigned block : shuffled(n_blocks, random)) {
        blockIdx.x = first_block + block;
        std::memset(shared.data(), 0xA5, shared.size() * sizeof(double));
        if (barriers) {
            if (run_block_with_barriers(n_threads, random)) return 1;
            continue;
        }
        for (unsigned thread : shuffled(n_threads, random)) {
            threadIdx.x = thread;
            run();
        }
    }
    return 0;
}

}  // namespace emulator

inline void __syncthreads(int line = __builtin_LINE()) { emulator::wait(line); }
inline void __syncwarp(int line = __builtin_LINE()) { emulator::wait(-line); }
