// The machinery behind shim.h: fibers, the scheduler, guarded memory. Part of every library of emulated kernels.
#include "shim.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include <sys/mman.h>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// Saves the callee's registers on the stack, its top in *save, and goes on where `load` was saved. Written out because
// swapcontext asks the system at each change.
extern "C" void emulate_switch(void** save, void* load);
#if defined(__x86_64__)
asm(R"(
.text
.hidden emulate_switch
.globl emulate_switch
.type emulate_switch,@function
emulate_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulate_switch,.-emulate_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.hidden emulate_switch
.globl emulate_switch
.type emulate_switch,%function
emulate_switch:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x2, sp
    str x2, [x0]
    mov sp, x1
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size emulate_switch,.-emulate_switch
)");
#else
#error "the emulation changes fibers on x86_64 and aarch64 only"
#endif

namespace emulate {

const bool* waited = nullptr;

namespace {

constexpr size_t kStackBytes = 256 << 10, kPage = 4096;
constexpr size_t kGuardBytes = 256;
// What a block may have on every device that we compile for: compute capability 8.6, 8.9 and 12.0 have the least.
constexpr size_t kSharedBytes = 99 << 10;
constexpr uint32_t kMaxThreads = 1024;
constexpr uint8_t kPoison = 0xff;

// SplitMix64 (Steele, Lea & Flood 2014).
struct Random {
    uint64_t state;
    uint64_t next() {
        uint64_t z = state += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }
    uint32_t below(uint32_t n) { return uint32_t((next() >> 32) * n >> 32); }
};

struct Copy {
    void* shared;
    const void* global;
    uint32_t bytes, valid, group;
};

struct Fiber {
    void* top = nullptr;
    uint8_t* stack = nullptr;
    uint3 id{};
    uint32_t groups = 0;
    bool waited = false;
    std::vector<Copy> copies;
};

// Masks of lanes.
struct Warp {
    uint32_t lanes, ready, exited, at_barrier, meeting;
    void* brought[32];
    WarpFunction function[32];
    uint32_t mask[32];
};

struct Variable {
    const void* key;
    size_t offset, bytes;
};

struct Allocation {
    uint8_t* base;
    size_t bytes;
    bool constant;
};

struct State {
    // The launch.
    const char* name = nullptr;
    Body body = nullptr;
    const void* params = nullptr;
    uint32_t threads = 0, dynamic_bytes = 0;
    Random random{0};
    bool abandoned = false;
    // The block.
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    uint32_t current = 0, waiting = 0, exited = 0, votes = 0, result_votes = 0, result_threads = 0;
    void* scheduler = nullptr;
    // Memory.
    std::vector<uint8_t*> free_stacks, all_stacks;
    uint8_t* shared = nullptr;
    size_t shared_used = 0;
    std::vector<Variable> variables;
    // Global memory, sorted by address.
    std::vector<Allocation> allocations;
};

State state;
std::mutex launching;
// A host thread hears of its own launches only.
thread_local std::string first_fault, reported;

void note(const std::string& fault) {
    if (first_fault.empty()) first_fault = fault;
}

uint8_t* new_stack() {
    if (!state.free_stacks.empty()) {
        uint8_t* stack = state.free_stacks.back();
        state.free_stacks.pop_back();
        return stack;
    }
    void* memory =
        mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kPage, PROT_NONE) != 0) {
        std::fputs("emulation: no memory for a thread's stack\n", stderr);
        std::abort();
    }
    state.all_stacks.push_back(static_cast<uint8_t*>(memory));
    return static_cast<uint8_t*>(memory);
}

void to_scheduler() { emulate_switch(&state.fibers[state.current].top, state.scheduler); }

void land(const Copy& copy) {
    std::memcpy(copy.shared, copy.global, copy.valid);
    std::memset(static_cast<uint8_t*>(copy.shared) + copy.valid, 0, copy.bytes - copy.valid);
}

// Whether all lanes of `mask` that still run are waiting for one another.
bool complete(const Warp& warp, uint32_t mask) {
    uint32_t needed = mask & ~warp.exited;
    if (needed & ~warp.meeting) return false;
    for (; needed; needed &= needed - 1) {
        if (warp.mask[__builtin_ctz(needed)] != mask) return false;
    }
    return true;
}

void resolve(Warp& warp, uint32_t mask) {
    const uint32_t present = mask & ~warp.exited;
    if (!present) return;
    void* lanes[32];
    const WarpFunction function = warp.function[__builtin_ctz(present)];
    for (uint32_t i = 0; i < 32; i++) {
        lanes[i] = present >> i & 1 ? warp.brought[i] : nullptr;
        if (lanes[i] && warp.function[i] != function) {
            fail("lanes of one warp meet at different operations (mask %08x)", mask);
        }
    }
    warp.meeting &= ~present;
    warp.ready |= present;
    function(lanes);
}

void release_barrier_if_complete() {
    if (state.waiting == 0 || state.waiting + state.exited < state.threads) return;
    state.result_votes = state.votes;
    state.result_threads = state.waiting;
    state.votes = 0;
    state.waiting = 0;
    for (Warp& warp : state.warps) {
        warp.ready |= warp.at_barrier;
        warp.at_barrier = 0;
    }
}

void run_fiber() {
    state.body(state.params);
    if (!*waited) fail("ends without waiting for the previous kernel");
    const uint32_t lane = state.current % 32;
    Warp& warp = state.warps[state.current / 32];
    Fiber& fiber = state.fibers[state.current];
    warp.ready &= ~(1u << lane);
    warp.exited |= 1u << lane;
    state.exited++;
    // Threads that returned count as arrived.
    for (uint32_t left = warp.meeting; left; left &= left - 1) {
        const uint32_t i = uint32_t(__builtin_ctz(left));
        if (warp.meeting >> i & 1 && complete(warp, warp.mask[i])) resolve(warp, warp.mask[i]);
    }
    release_barrier_if_complete();
    // Free for the next fiber, which begins only after this one has left it.
    state.free_stacks.push_back(fiber.stack);
    fiber.stack = nullptr;
    to_scheduler();
}

void enter(uint32_t thread) {
    Fiber& fiber = state.fibers[thread];
    if (!fiber.stack) {
        fiber.stack = new_stack();
#if defined(__x86_64__)
        // Six registers, then the address that the switch returns to; the stack is then as after a call.
        void** top = reinterpret_cast<void**>(fiber.stack + kStackBytes - 64);
        top[0] = reinterpret_cast<void*>(&run_fiber);
        fiber.top = top - 6;
#else
        void** frame = reinterpret_cast<void**>(fiber.stack + kStackBytes - 64 - 160);
        frame[11] = reinterpret_cast<void*>(&run_fiber);
        fiber.top = frame;
#endif
    }
    state.current = thread;
    threadIdx = fiber.id;
    waited = &fiber.waited;
    emulate_switch(&state.scheduler, fiber.top);
}

void visit(uint32_t index) {
    Warp& warp = state.warps[index];
    const uint64_t draw = state.random.next();
    const uint32_t first = draw & 31, step = draw & 32 ? 31 : 1;
    const uint32_t ready = warp.ready;
    for (uint32_t i = 0, lane = first; i < 32; i++, lane = (lane + step) & 31) {
        if (!(ready >> lane & 1)) continue;
        enter(index * 32 + lane);
        if (state.abandoned) return;
    }
}

void report_deadlock() {
    uint32_t meeting = 0;
    for (const Warp& warp : state.warps) meeting += uint32_t(__builtin_popcount(warp.meeting));
    char text[256];
    std::snprintf(text, sizeof text,
                  "%s: in block (%u, %u, %u) %u threads wait at the block's barrier and %u in operations of their warp, "
                  "%u returned, and nobody can go on",
                  state.name, blockIdx.x, blockIdx.y, blockIdx.z, state.waiting, meeting, state.exited);
    note(text);
    state.abandoned = true;
}

void check_guard(const uint8_t* guard, size_t bytes, const char* what) {
    for (size_t i = 0; i < bytes; i++) {
        if (guard[i] == kPoison) continue;
        char text[256];
        std::snprintf(text, sizeof text, "%s: block (%u, %u, %u) wrote past %s", state.name, blockIdx.x, blockIdx.y,
                      blockIdx.z, what);
        note(text);
        state.abandoned = true;
        return;
    }
}

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// Dynamic memory first, then the variables as threads reach them, each with a guard behind it.
size_t dynamic_end() { return kGuardBytes + round_up(state.dynamic_bytes, 16); }

void run_block() {
    std::memset(state.shared, kPoison, std::max(state.shared_used, dynamic_end() + kGuardBytes));
    state.waiting = state.exited = state.votes = 0;
    const uint32_t n = state.threads;
    for (uint32_t i = 0; i < n; i++) {
        state.fibers[i].groups = 0;
        state.fibers[i].waited = false;
        state.fibers[i].copies.clear();
    }
    for (uint32_t w = 0; w < state.warps.size(); w++) {
        const uint32_t count = std::min(32u, n - w * 32);
        const uint32_t lanes = count == 32 ? 0xffffffff : (1u << count) - 1;
        state.warps[w] = {};
        state.warps[w].lanes = state.warps[w].ready = lanes;
        state.warps[w].exited = ~lanes;
    }
    // Sometimes warps take turns, sometimes one runs as far as it can: both happen on a device.
    constexpr uint32_t kStay[] = {0, 224, 256};
    const uint32_t stay = kStay[state.random.below(3)];
    const uint32_t warps = uint32_t(state.warps.size());
    uint32_t index = state.random.below(warps);
    while (state.exited < n) {
        if (!state.warps[index].ready || state.random.below(256) >= stay) {
            index = state.random.below(warps);
            uint32_t tried = 0;
            while (!state.warps[index].ready && tried < warps) {
                index = index + 1 == warps ? 0 : index + 1;
                tried++;
            }
            if (tried == warps) {
                report_deadlock();
                break;
            }
        }
        visit(index);
        if (state.abandoned) break;
    }
    if (state.abandoned) {
        // Fibers that will not go on leave their stacks to others.
        for (Fiber& fiber : state.fibers) fiber.stack = nullptr;
        state.free_stacks = state.all_stacks;
        return;
    }
    check_guard(state.shared, kGuardBytes, "the start of its dynamic shared memory");
    check_guard(state.shared + kGuardBytes + state.dynamic_bytes,
                dynamic_end() - state.dynamic_bytes, "its dynamic shared memory");
    for (const Variable& v : state.variables) {
        check_guard(state.shared + v.offset + v.bytes, kGuardBytes, "a shared variable");
    }
}

void check_allocations() {
    for (const Allocation& a : state.allocations) {
        for (size_t i = 0; i < kGuardBytes; i++) {
            if (a.base[i] == kPoison && a.base[kGuardBytes + a.bytes + i] == kPoison) continue;
            char text[256];
            std::snprintf(text, sizeof text, "%s: a write outside an allocation of %zu bytes of global memory",
                          state.name ? state.name : "free", a.bytes);
            note(text);
            // Said once: the next launch may be another thread's.
            std::memset(a.base, kPoison, kGuardBytes);
            std::memset(a.base + kGuardBytes + a.bytes, kPoison, kGuardBytes);
            break;
        }
    }
}

uint32_t greatest_common_divisor(uint32_t a, uint32_t b) { return b ? greatest_common_divisor(b, a % b) : a; }

}  // namespace

void launch(const char* name, Body body, const void* params, const uint32_t grid[3], const uint32_t block[3],
            uint32_t shared_bytes, uint32_t max_threads, uint64_t seed) {
    const std::lock_guard<std::mutex> lock(launching);
    state.name = name;
    state.body = body;
    state.params = params;
    state.random.state = seed;
    state.abandoned = false;
    const uint64_t threads = uint64_t(block[0]) * block[1] * block[2];
    const bool grid_fits = grid[0] && grid[1] && grid[2] && grid[0] <= 0x7fffffff && grid[1] <= 65535 && grid[2] <= 65535;
    if (!grid_fits || threads == 0 || threads > std::min(max_threads, kMaxThreads) || block[2] > 64 ||
        shared_bytes > kSharedBytes) {
        char text[256];
        std::snprintf(text, sizeof text,
                      "%s: not every device takes a grid of %u x %u x %u blocks of %u x %u x %u threads with %u bytes of shared "
                      "memory (at most %u threads)",
                      name, grid[0], grid[1], grid[2], block[0], block[1], block[2], shared_bytes, max_threads);
        note(text);
        return;
    }
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    state.threads = uint32_t(threads);
    state.dynamic_bytes = shared_bytes;
    state.variables.clear();
    state.shared_used = 0;
    if (!state.shared) {
        void* memory = std::aligned_alloc(128, 2 * kSharedBytes);
        if (!memory) std::abort();
        state.shared = static_cast<uint8_t*>(memory);
    }
    if (state.fibers.size() < threads) state.fibers.resize(threads);
    state.warps.resize((threads + 31) / 32);
    for (uint32_t i = 0; i < threads; i++) {
        state.fibers[i].id = {i % block[0], i / block[0] % block[1], i / block[0] / block[1]};
    }
    // Blocks in an order that steps through all of them.
    const uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2];
    const uint32_t around = blocks <= 0xffffffff ? uint32_t(blocks) : 1;
    uint32_t step = 1 + state.random.below(around);
    while (greatest_common_divisor(step, around) != 1) step++;
    uint64_t at = state.random.below(around);
    for (uint64_t i = 0; i < blocks && !state.abandoned; i++, at = (at + step) % blocks) {
        blockIdx = {uint32_t(at % grid[0]), uint32_t(at / grid[0] % grid[1]), uint32_t(at / grid[0] / grid[1])};
        run_block();
    }
    check_allocations();
}

void fail(const char* format, ...) {
    char what[256], text[512];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    std::snprintf(text, sizeof text, "%s: thread (%u, %u, %u) of block (%u, %u, %u): %s", state.name, threadIdx.x,
                  threadIdx.y, threadIdx.z, blockIdx.x, blockIdx.y, blockIdx.z, what);
    note(text);
    state.abandoned = true;
    to_scheduler();
    std::abort();
}

void meet(uint32_t mask, WarpFunction function, void* lane) {
    const uint32_t own = state.current % 32;
    Warp& warp = state.warps[state.current / 32];
    if (!(mask >> own & 1)) fail("takes part in an operation of lanes %08x, which it is not one of", mask);
    warp.brought[own] = lane;
    warp.function[own] = function;
    warp.mask[own] = mask;
    warp.meeting |= 1u << own;
    if (complete(warp, mask)) {
        resolve(warp, mask);
    } else {
        warp.ready &= ~(1u << own);
        to_scheduler();
    }
}

uint32_t barrier(bool predicate, uint32_t* threads) {
    Warp& warp = state.warps[state.current / 32];
    const uint32_t bit = 1u << state.current % 32;
    warp.at_barrier |= bit;
    warp.ready &= ~bit;
    state.waiting++;
    state.votes += predicate;
    release_barrier_if_complete();
    if (!(warp.ready & bit)) to_scheduler();
    if (threads) *threads = state.result_threads;
    return state.result_votes;
}

void* shared_variable(const void* key, size_t bytes) {
    for (const Variable& v : state.variables) {
        if (v.key == key) return state.shared + v.offset;
    }
    const size_t offset = state.variables.empty()
                              ? dynamic_end() + kGuardBytes
                              : round_up(state.variables.back().offset + state.variables.back().bytes, 16) + kGuardBytes;
    size_t total = state.dynamic_bytes + bytes;
    for (const Variable& v : state.variables) total += v.bytes;
    if (total > kSharedBytes || offset + bytes + kGuardBytes > 2 * kSharedBytes) {
        fail("needs more than %zu bytes of shared memory", kSharedBytes);
    }
    state.variables.push_back({key, offset, bytes});
    const size_t end = offset + bytes + kGuardBytes;
    std::memset(state.shared + offset, kPoison, bytes + kGuardBytes);
    state.shared_used = std::max(state.shared_used, end);
    return state.shared + offset;
}

void* dynamic_shared() { return state.shared + kGuardBytes; }

void check_shared(const void* p, size_t bytes) {
    const uint8_t* at = static_cast<const uint8_t*>(p);
    const uint8_t* dynamic = state.shared + kGuardBytes;
    if (at >= dynamic && at + bytes <= dynamic + state.dynamic_bytes) return;
    for (const Variable& v : state.variables) {
        if (at >= state.shared + v.offset && at + bytes <= state.shared + v.offset + v.bytes) return;
    }
    fail("%zu bytes outside the block's shared memory (at byte %td of %u dynamic ones)", bytes, at - dynamic,
         state.dynamic_bytes);
}

void wait_for_previous() { state.fibers[state.current].waited = true; }

void check_global(const void* p, size_t bytes) {
    const uint8_t* at = static_cast<const uint8_t*>(p);
    auto after = std::upper_bound(state.allocations.begin(), state.allocations.end(), at,
                                  [](const uint8_t* p, const Allocation& a) { return p < a.base; });
    if (after != state.allocations.begin()) {
        const Allocation& a = *(after - 1);
        const uint8_t* first = a.base + kGuardBytes;
        if (at >= first && at + bytes <= first + a.bytes) {
            if (*waited || a.constant) return;
            fail("reads what is no constant before it waits for the previous kernel");
        }
    }
    fail("%zu bytes outside every allocation of global memory", bytes);
}

void copy_async(void* shared, const void* global, uint32_t bytes, uint32_t valid) {
    if (valid > bytes) fail("an asynchronous copy of %u valid bytes of %u", valid, bytes);
    if (bytes != 4 && bytes != 8 && bytes != 16) fail("no asynchronous copy has %u bytes", bytes);
    if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % bytes != 0) {
        fail("an asynchronous copy of %u bytes between addresses that are not aligned to it", bytes);
    }
    check_shared(shared, bytes);
    if (valid) check_global(global, valid);
    Fiber& fiber = state.fibers[state.current];
    const Copy copy{shared, global, bytes, valid, fiber.groups};
    // A copy may land at once or as late as the wait; both must be right.
    if (state.random.next() & 1) {
        land(copy);
    } else {
        fiber.copies.push_back(copy);
    }
}

void copy_commit() { state.fibers[state.current].groups++; }

void copy_wait(uint32_t groups_left) {
    Fiber& fiber = state.fibers[state.current];
    auto lands = [&](const Copy& copy) { return copy.group < fiber.groups && fiber.groups - copy.group > groups_left; };
    auto kept = fiber.copies.begin();
    for (const Copy& copy : fiber.copies) {
        if (lands(copy)) {
            land(copy);
        } else {
            *kept++ = copy;
        }
    }
    fiber.copies.erase(kept, fiber.copies.end());
}

// What the compiler's check of alignment tells, as far as it is read here: the place in the source.
struct Misaligned {
    const char* file;
    uint32_t line, column;
};

}  // namespace emulate

// A device does not read or write across the boundaries of what it reads or writes; the host does, so the compiler checks
// each access and calls this.
extern "C" __attribute__((visibility("hidden"))) void __ubsan_handle_type_mismatch_v1(void* what, void*) {
    const auto& at = *static_cast<const emulate::Misaligned*>(what);
    const char* const name = std::strrchr(at.file, '/');
    emulate::fail("an access that is not aligned to its type (%s, line %u)", name ? name + 1 : at.file, at.line);
}

using emulate::kGuardBytes;
using emulate::kPoison;
using emulate::state;

static void* allocate(uint64_t bytes, bool constant) {
    const std::lock_guard<std::mutex> lock(emulate::launching);
    if (bytes > SIZE_MAX - 4 * kGuardBytes) return nullptr;
    void* memory = std::aligned_alloc(256, emulate::round_up(bytes + 2 * kGuardBytes, 256));
    if (!memory) return nullptr;
    uint8_t* base = static_cast<uint8_t*>(memory);
    std::memset(base, kPoison, bytes + 2 * kGuardBytes);
    auto& all = state.allocations;
    auto at = std::upper_bound(all.begin(), all.end(), base,
                               [](const uint8_t* p, const emulate::Allocation& a) { return p < a.base; });
    all.insert(at, {base, size_t(bytes), constant});
    return base + kGuardBytes;
}

extern "C" void* emulate_allocate(uint64_t bytes) { return allocate(bytes, false); }
extern "C" void* emulate_allocate_constants(uint64_t bytes) { return allocate(bytes, true); }

extern "C" void emulate_free(void* memory) {
    if (!memory) return;
    const std::lock_guard<std::mutex> lock(emulate::launching);
    emulate::check_allocations();
    uint8_t* base = static_cast<uint8_t*>(memory) - kGuardBytes;
    auto& all = state.allocations;
    auto at = std::find_if(all.begin(), all.end(), [=](const emulate::Allocation& a) { return a.base == base; });
    if (at == all.end()) {
        emulate::note("free: an address that was not allocated");
        return;
    }
    all.erase(at);
    std::free(base);
}

extern "C" const char* emulate_fault() {
    if (emulate::first_fault.empty()) return nullptr;
    emulate::reported.swap(emulate::first_fault);
    emulate::first_fault.clear();
    return emulate::reported.c_str();
}
