// What kernels in PTX need to run on the CPU, with a count of what they do (tests/ptx.py translates them). Threads run
// as in cuda_on_cpu.h, in full blocks with warps of 32.
//
// Each register carries the time at which it is ready, in cycles, for several devices side by side (a vector): operands
// are waited for, a result comes after the latency of its operation, instructions issue one a cycle. The last element
// counts loads in place of cycles: how many the longest chain has that each wait for the one before.
#pragma once
#define LANES_OF_PTX 32
#include "cuda_on_cpu.h"
#undef LANES

#include <cstdint>
#include <cstdlib>
#include <unordered_map>

typedef float Time __attribute__((vector_size(32)));  // T4, RTX 4090, A100, H100, chain of loads
enum Latency { NO_LATENCY, ALU, WIDE, SPECIAL, DOUBLE, DIVIDE, DIVIDE_64, SHARED, NEAR, FAR, ATOMIC, N_LATENCIES };

struct Found {
    // Bytes: of all sectors of memory touched, each once. Instructions: of warps, which issue what any of their lanes
    // does; and those of the lane with most, in each warp.
    double requests, sectors, bytes, misses, issued, issued_by_longest;
    double longest[8], total[8];                               // cycles of a block: of the longest, and of all
    double counts[1024];                                       // how often warps went through each stretch of code
};

namespace ptx {

static Time latency[N_LATENCIES];
static Time issue;      // cycles an instruction takes to issue; none in a chain of loads
static const Time nothing = {};
static std::vector<Time> clocks;
static std::vector<uint32_t> counts, ordinals;
static unsigned n_stretches, n_accesses;
static bool traced;
static std::vector<std::vector<uint64_t>> trace;  // of each warp: access, how often it was made before, sector
static Found* found;

inline Time later(Time a, Time b) { return a > b ? a : b; }
inline Time later(Time a, Time b, Time c) { return later(later(a, b), c); }

// Sectors of 32 bytes that a launch has touched, and those a block has, of which a first-level cache holds some.
static std::unordered_map<uint64_t, std::vector<bool>> pages;
static std::vector<bool>* page;
static uint64_t page_number = ~0ull;
static std::vector<uint64_t> cache;
static uint64_t epoch;

inline bool is_shared(uint64_t address) {
    const uint64_t begin = (uint64_t)emulator::shared.data();
    return address - begin < emulator::shared.size() * sizeof(double);
}

// Note an access to memory; return its latency.
inline Time touch(unsigned access, uint64_t address, bool reads) {
    if (is_shared(address)) return latency[SHARED];
    const unsigned thread = threadIdx.x;
    const uint64_t sector = address >> 5;
    if (sector >> 12 != page_number) {
        page_number = sector >> 12;
        page = &pages[page_number];
        if (page->empty()) page->resize(4096);
    }
    (*page)[sector & 4095] = true;
    if (traced) {
        const uint64_t before = ordinals[thread * n_accesses + access]++;
        trace[thread / 32].push_back((uint64_t)access << 54 | (before & 0xFFFF) << 38 | (sector & 0x3FFFFFFFFF));
    }
    if (!reads) return nothing;
    uint64_t& held = cache[sector % cache.size()];
    const uint64_t mark = epoch << 40 | (sector & 0xFFFFFFFFFF);
    const bool hit = held == mark;
    held = mark;
    found->misses += !hit;
    return hit ? latency[NEAR] : latency[FAR];
}

inline void released(unsigned begin, unsigned end) {
    Time last = clocks[begin];
    for (unsigned i = begin; i < end; ++i) last = later(last, clocks[i]);
    for (unsigned i = begin; i < end; ++i) clocks[i] = last;
}

inline void wait(Time& now, int line) {
    const unsigned thread = threadIdx.x;
    clocks[thread] = now;
    emulator::wait(line);
    now = clocks[thread];
}

template <class Function>
int launch(
    unsigned n_blocks, unsigned n_threads, unsigned shared_bytes, unsigned seed, bool barriers, unsigned stretches,
    const float* weights, unsigned accesses, Found* out, Function run) {
    found = out;
    n_stretches = stretches, n_accesses = accesses;
    *found = {};
    pages.clear();
    page_number = ~0ull;
    cache.assign(2048, 0);  // 64 KiB
    emulator::released = released;
    const unsigned n_warps = (n_threads + 31) / 32, stride = std::max(1u, n_blocks / 16);
    trace.resize(n_warps);
    unsigned n_traced = 0;
    double requests = 0, sectors = 0;
    for (unsigned block = 0; block < n_blocks; ++block) {
        clocks.assign(n_threads, nothing);
        counts.assign(n_threads * stretches, 0);
        ordinals.assign(n_threads * accesses, 0);
        traced = block % stride == 0;
        n_traced += traced;
        ++epoch;
        emulator::first_block = block;
        if (emulator::launch(1, n_threads, shared_bytes, seed + block, barriers, run)) return 1;
        Time last = nothing;
        for (unsigned i = 0; i < n_threads; ++i) last = later(last, clocks[i]);
        for (int i = 0; i < 8; ++i) {
            found->longest[i] = std::max(found->longest[i], (double)last[i]);
            found->total[i] += last[i];
        }
        for (unsigned warp = 0; warp < n_warps; ++warp) {
            double most = 0;
            for (unsigned i = warp * 32; i < std::min(warp * 32 + 32, n_threads); ++i) {
                double own = 0;
                for (unsigned k = 0; k < stretches; ++k) own += weights[k] * counts[i * stretches + k];
                most = std::max(most, own);
            }
            found->issued_by_longest += most;
            for (unsigned k = 0; k < stretches; ++k) {
                uint32_t of_warp = 0;
                for (unsigned i = warp * 32; i < std::min(warp * 32 + 32, n_threads); ++i)
                    of_warp = std::max(of_warp, counts[i * stretches + k]);
                found->counts[k] += of_warp;
                found->issued += weights[k] * of_warp;
            }
        }
        if (!traced) continue;
        for (auto& of_warp : trace) {
            std::sort(of_warp.begin(), of_warp.end());
            of_warp.erase(std::unique(of_warp.begin(), of_warp.end()), of_warp.end());
            sectors += of_warp.size();
            uint64_t before = ~0ull;
            for (uint64_t entry : of_warp) requests += entry >> 38 != before, before = entry >> 38;
            of_warp.clear();
        }
    }
    emulator::released = nullptr;
    emulator::first_block = 0;
    found->requests = requests * n_blocks / n_traced;
    found->sectors = sectors * n_blocks / n_traced;
    for (auto& entry : pages) found->bytes += 32.0 * std::count(entry.second.begin(), entry.second.end(), true);
    return 0;
}

template <class To, class From> inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
inline float ftz(float x) { return std::fabs(x) < 1.17549435e-38f ? std::copysign(0.0f, x) : x; }
inline float fma_down(float a, float b, float c) {
    const double exact = (double)a * b + c;
    const float near = (float)exact;
    return near > exact ? std::nextafterf(near, -INFINITY) : near;
}
inline float saturated(float x) { return x > 0 ? std::min(x, 1.0f) : 0.0f; }
template <class Int> inline Int truncated(double x) {
    if (!(x == x)) return 0;
    const double low = (double)std::numeric_limits<Int>::min(), high = (double)std::numeric_limits<Int>::max();
    return x <= low ? std::numeric_limits<Int>::min() : x >= high ? std::numeric_limits<Int>::max() : (Int)x;
}
template <class T> inline T* at(uint64_t address) { return (T*)address; }

}  // namespace ptx

extern "C" void set_latencies(const float* values, const float* of_issue) {
    for (int k = 0; k < N_LATENCIES; ++k)
        for (int i = 0; i < 8; ++i) ptx::latency[k][i] = values[8 * k + i];
    for (int i = 0; i < 8; ++i) ptx::issue[i] = of_issue[i];
}
