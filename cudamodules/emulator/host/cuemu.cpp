// The scheduler behind cuemu.h.
#include "cuemu.h"
#include "fiber.h"

#include <string>
#include <unordered_map>
#include <vector>

#include "launch.h"
#include "schedule.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// The bounds of the section that __shared__ puts variables into; the linker makes them up. There is always one variable.
extern "C" unsigned char __start_cuemu_shared[] __attribute__((visibility("hidden")));
extern "C" unsigned char __stop_cuemu_shared[] __attribute__((visibility("hidden")));
__shared__ int cuemu_anchor __attribute__((used));

namespace cuemu {
namespace {
enum class State { ready, at_barrier, at_exchange, together, waiting, done };

struct Thread {
  Fiber fiber;
  State state;
  const void *brings;
  size_t size;
  void *takes;
  void (*act)(int, void **);      // together
  bool last;
  bool (*until)(void *);          // waiting
  void *arg;
  bool patient, given_up;
};

std::vector<Thread> threads;
std::vector<char> stacks, dynamic_memory;
Fiber scheduler;
int current;
Call running;
void **running_params;
const char *failure;
unsigned schedule_seed;
size_t shared_asked;

constexpr size_t stack_size = 64 << 10;

std::unordered_map<std::string, Kernel> &table() {
  static std::unordered_map<std::string, Kernel> t;
  return t;
}

void wait(State s) {
  int me = current;
  threads[me].state = s;
  switch_fiber(&threads[me].fiber, &scheduler);
}

void thread_main() {
  running(running_params);
  wait(State::done);
}

uint64_t random_state;

// act lets a warp go on whose lanes are all together.
bool act(int w) {
  const int n = (int)threads.size();
  if (w + 32 > n) return false;
  void *brought[32];
  for (int i = 0; i < 32; i++) {
    if (threads[w + i].state != State::together) return false;
    if (threads[w + i].act != threads[w].act) fail("lanes of one warp in different instructions");
    brought[i] = const_cast<void *>(threads[w + i].brings);
  }
  threads[w].act(w / 32, brought);
  for (int i = 0; i < 32; i++) threads[w + i].state = State::ready;
  return true;
}

bool act_last() {
  for (size_t w = 0; w < threads.size(); w += 32)
    if (threads[w].last && act((int)w)) return true;
  return false;
}

// progress is what happens when nobody can go on: a warp that comes last does, or something beside the threads, or whoever is patient no
// longer gives up.
bool progress(bool &given_up) {
  const bool first = schedule_seed == 1 || schedule_seed == 3 || (schedule_seed > 3 && chance(2));
  if (first ? act_last() || beside_step() : beside_step() || act_last()) return true;
  for (auto &t : threads)
    if (t.state == State::waiting && t.patient) {
      t.given_up = given_up = true;
      t.state = State::ready;
      return true;
    }
  return false;
}

// release lets go whoever waits for nobody any more. It returns false if everybody waits for somebody.
bool release() {
  int n = (int)threads.size(), barrier = 0, done = 0;
  bool any = false;
  for (auto &t : threads) {
    barrier += t.state == State::at_barrier;
    done += t.state == State::done;
  }
  if (barrier && barrier + done == n) {
    if (done) failure = "a barrier that some threads never reached";
    for (auto &t : threads)
      if (t.state == State::at_barrier) t.state = State::ready;
    any = true;
  }
  for (auto &t : threads)
    if (t.state == State::waiting && t.until(t.arg)) {
      t.state = State::ready;
      any = true;
    }
  for (int w = 0; w < n; w += 32) any |= (!threads[w].last || schedule_seed == 0) && act(w);
  for (int w = 0; w < n; w += 32) {
    int end = w + 32 < n ? w + 32 : n, waiting = 0;
    size_t size = 0;
    for (int i = w; i < end; i++)
      if (threads[i].state == State::at_exchange) {
        waiting++;
        if (size && threads[i].size != size) failure = "lanes of one warp in different shuffles";
        size = threads[i].size;
      }
    if (waiting != end - w) continue;
    if (end - w < 32) failure = "a shuffle in a warp that is not full";
    for (int i = w; i < end; i++)
      for (int j = w; j < end; j++) memcpy((char *)threads[i].takes + (j - w) * size, threads[j].brings, size);
    for (int i = w; i < end; i++) threads[i].state = State::ready;
    any = true;
  }
  return any;
}

bool warp_ready(int w) {
  for (size_t i = w * 32; i < threads.size() && i < w * 32 + 32u; i++)
    if (threads[i].state == State::ready) return true;
  return false;
}

// choose lists the threads to run next, in turn. Schedule 0 takes all of them, in order. The others take one warp, and stay with it
// as long as it can go on, so that it gets as far ahead of the others as barriers allow: 1 takes the last warp that can run, and its
// lanes backwards, the rest choose by chance.
void choose(std::vector<int> &list, int &warp) {
  int n = (int)threads.size(), warps = (n + 31) / 32;
  list.clear();
  if (schedule_seed == 0) {
    for (int i = 0; i < n; i++) list.push_back(i);
    return;
  }
  if (warp < 0 || !warp_ready(warp)) {
    int first = schedule_seed == 1 ? warps - 1 : chance(warps);
    for (warp = first; !warp_ready(warp);) {
      warp = (warp + warps - 1) % warps;
      if (warp == first) return;
    }
  }
  for (int i = warp * 32; i < n && i < warp * 32 + 32; i++) list.insert(list.begin(), i);
  if (schedule_seed == 1) return;
  for (int i = (int)list.size() - 1; i > 0; i--) std::swap(list[i], list[chance(i + 1)]);
}

bool any_ready() {
  for (auto &t : threads)
    if (t.state == State::ready) return true;
  return false;
}

bool run_block(size_t shared) {
  memset(__start_cuemu_shared, 0xff, __stop_cuemu_shared - __start_cuemu_shared);
  memset(dynamic_memory.data(), 0xff, dynamic_memory.size());
  for (size_t i = 0; i < threads.size(); i++) {
    threads[i].state = State::ready;
    make_fiber(&threads[i].fiber, &stacks[i * stack_size], stack_size, thread_main);
  }
  beside_begin();
  bool given_up = false;
  int warp = -1;
  std::vector<int> list;
  for (size_t done = 0; done < threads.size();) {
    choose(list, warp);
    for (int i : list) {
      if (threads[i].state != State::ready) continue;
      current = i;
      threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
      switch_fiber(&scheduler, &threads[i].fiber);
      done += threads[i].state == State::done;
    }
    if (!release() && !any_ready() && done < threads.size() && !progress(given_up)) {
      failure = "threads that wait for each other: a barrier or shuffle in a branch";
      return false;
    }
  }
  beside_end(given_up);
  // Past the end of what was asked for, dynamic shared memory must be as it was.
  for (size_t i = shared + 128; i < dynamic_memory.size(); i++)
    if ((unsigned char)dynamic_memory[i] != 0xff) {
      failure = "a write beyond dynamic shared memory";
      return false;
    }
  return true;
}
}  // namespace

void add(const Kernel &k) { table()[k.name] = k; }
int removed_barrier = -1;
unsigned lane() { return current & 31; }
void barrier() { wait(State::at_barrier); }
void exchange(const void *mine, size_t size, void *all) {
  Thread &t = threads[current];
  t.brings = mine;
  t.size = size;
  t.takes = all;
  wait(State::at_exchange);
}
unsigned schedule() { return schedule_seed; }
unsigned chance(unsigned n) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (unsigned)((random_state >> 33) % n);
}
int current_thread() { return current; }
int thread_count() { return (int)threads.size(); }
void fail(const char *what) {
  if (!failure) failure = what;
}
size_t dynamic_size() { return shared_asked; }
void together(void (*f)(int, void **), void *mine, bool last) {
  Thread &t = threads[current];
  t.act = f;
  t.brings = mine;
  t.last = last;
  wait(State::together);
}
bool wait_until(bool (*ready)(void *), void *arg, bool patient) {
  if (ready(arg)) return true;
  Thread &t = threads[current];
  t.until = ready;
  t.arg = arg;
  t.patient = patient;
  t.given_up = false;
  wait(State::waiting);
  return !threads[current].given_up;
}
unsigned char *dynamic_shared() { return (unsigned char *)(((uintptr_t)dynamic_memory.data() + 127) & ~(uintptr_t)127); }

const Kernel *find(const char *name) {
  auto it = table().find(name);
  return it == table().end() ? nullptr : &it->second;
}
void set_schedule(unsigned seed) { schedule_seed = seed; }

const char *launch(const Kernel &k, dim3 grid, dim3 block, size_t shared, void **params) {
  size_t n = (size_t)block.x * block.y * block.z;
  failure = nullptr;
  threads.resize(n);
  if (stacks.size() < n * stack_size) stacks.resize(n * stack_size);
  shared_asked = shared;
  dynamic_memory.resize(shared + 128 + 256);
  gridDim = grid;
  blockDim = block;
  running = k.call;
  running_params = params;
  random_state = schedule_seed;
  // Blocks run in the schedule's order too: no block may wait for another.
  unsigned blocks = grid.x * grid.y * grid.z;
  for (unsigned i = 0; i < blocks; i++) {
    unsigned b = schedule_seed == 1 ? blocks - 1 - i : i;
    blockIdx = {b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)};
    if (!run_block(shared)) break;
  }
  return failure;
}
}  // namespace cuemu
