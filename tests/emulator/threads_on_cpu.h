// What the kernels use of CUDA C++, on the CPU, with a real thread for each of CUDA's, for a race detector: barriers of
// blocks and warps are real, and blocks run side by side, some at a time. Threads of a warp go on each by itself, as they
// may on a GPU: what needs __syncwarp and lacks it is a race. cuda_on_cpu.h is the faster one.
//
// It makes a program, not a library: a race detector wants a process to itself. The program does launches again that
// emulated.RecordingDevice has written down.
#pragma once
#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

struct Index3 {
    unsigned x = 0;
};
static thread_local Index3 threadIdx, blockIdx;
static Index3 blockDim, gridDim;

#define __global__ static
#define __device__
#define LANES 4
#define SHARED_ARRAY(type, name) type* name = reinterpret_cast<type*>(emulator::own->shared.data())

using std::exp;
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
    return __atomic_fetch_add(place, T(value), __ATOMIC_RELAXED);
}
template <class T, class U> inline T atomicOr(T* place, U value) {
    return __atomic_fetch_or(place, T(value), __ATOMIC_RELAXED);
}
template <class T, class U> inline T atomicMax(T* place, U value) {
    T old = __atomic_load_n(place, __ATOMIC_RELAXED);
    while (old < T(value) &&
           !__atomic_compare_exchange_n(place, &old, T(value), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}

namespace emulator {

// A block that runs: its shared memory, poisoned since a GPU does not clear it, and its barriers.
struct Block {
    std::vector<double> shared;
    std::barrier<> together;
    std::vector<std::unique_ptr<std::barrier<>>> warps;

    Block(unsigned n_threads, unsigned shared_bytes) : shared(shared_bytes / sizeof(double) + 1), together(n_threads) {
        std::memset(shared.data(), 0xA5, shared.size() * sizeof(double));
        for (unsigned begin = 0; begin < n_threads; begin += LANES)
            warps.emplace_back(new std::barrier<>(std::min<unsigned>(LANES, n_threads - begin)));
    }
};

static thread_local Block* own;

// Launch a kernel, at most so many threads at a time.
template <class Function>
int launch(unsigned n_blocks, unsigned n_threads, unsigned shared_bytes, unsigned, bool, Function run) {
    const unsigned at_once = std::max(1u, 128 / n_threads);
    gridDim.x = n_blocks;
    blockDim.x = n_threads;
    for (unsigned begin = 0; begin < n_blocks; begin += at_once) {
        std::vector<std::unique_ptr<Block>> blocks;
        std::vector<std::thread> threads;
        const unsigned end = std::min(begin + at_once, n_blocks);
        for (unsigned i = begin; i < end; ++i) blocks.emplace_back(new Block(n_threads, shared_bytes));
        for (unsigned i = begin; i < end; ++i)
            for (unsigned thread = 0; thread < n_threads; ++thread)
                threads.emplace_back([&, i, thread] {
                    own = blocks[i - begin].get();
                    blockIdx.x = i;
                    threadIdx.x = thread;
                    run();
                    own->together.arrive_and_drop();
                    own->warps[thread / LANES]->arrive_and_drop();
                });
        for (std::thread& thread : threads) thread.join();
    }
    return 0;
}

}  // namespace emulator

inline void __syncthreads() { emulator::own->together.arrive_and_wait(); }
inline void __syncwarp() { emulator::own->warps[threadIdx.x / LANES]->arrive_and_wait(); }

namespace emulator {

typedef int (*Launcher)(unsigned n_blocks, unsigned n_threads, unsigned shared_bytes, unsigned seed, void** arguments);

// Do the launches of a file: of each its name, its sizes and its arguments, arrays with what was in them before.
inline int replay(const char* path, const std::map<std::string, Launcher>& launchers) {
    FILE* const file = std::fopen(path, "rb");
    char name[64];
    uint32_t sizes[4];
    int n = 0;
    while (std::fread(name, sizeof name, 1, file) == 1 && std::fread(sizes, sizeof sizes, 1, file) == 1) {
        std::vector<std::vector<uint64_t>> held(sizes[3]);
        std::vector<void*> places(sizes[3]), arguments(sizes[3]);
        for (uint32_t i = 0; i < sizes[3]; ++i) {
            uint64_t head[2];  // whether it is an array; bytes
            if (std::fread(head, sizeof head, 1, file) != 1) return 1;
            held[i].resize(head[1] / 8 + 1);
            if (head[1] && std::fread(held[i].data(), head[1], 1, file) != 1) return 1;
            places[i] = held[i].data();
            arguments[i] = head[0] ? (void*)&places[i] : places[i];
        }
        if (launchers.at(name)(sizes[0], sizes[1], sizes[2], 1, arguments.data())) return 1;
        ++n;
    }
    std::fclose(file);
    std::printf("%d launches\n", n);
    return 0;
}

}  // namespace emulator
