// A CUDA driver on the host: the functions of libcuda.so.1 that cudamodules calls, over the emulator. Kernels run when they are
// launched; everything else is done at once. It keeps count of what is held, and is stricter than a card:
//
//   - memory comes filled with NaN, between guards that are looked at when it is freed;
//   - a module must be PTX that has an entry of the kernel's name, with as many parameters and of the same sizes as the source;
//   - a launch that is over a limit, or asks for more shared memory than was asked for before, is refused.
#include <sys/mman.h>

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "launch.h"

typedef int CUresult;
typedef uint64_t Address;

namespace {
enum : CUresult { ok = 0, invalid_value = 1, invalid_context = 201, invalid_image = 200, no_binary = 209, not_found = 500, launch_failed = 719, illegal_address = 700, invalid_handle = 400 };
constexpr size_t guard = 256;
constexpr int shared_default = 48 << 10, shared_most = 227 << 10;

struct Function {
  const cuemu::Kernel *kernel;
  int dynamic = shared_default;
};
struct Module {
  std::string ptx;
  std::map<std::string, Function *> functions;
};
struct Block {
  unsigned char *base;
  size_t size;
};

std::recursive_mutex lock;
std::map<Address, Block> memory;
size_t in_use, memory_limit = (size_t)8 << 30;
std::map<void *, int> handles;  // modules 1, streams 2, events 3
int contexts;
std::map<std::string, int> launches;
int64_t copied[2];  // to the card, to the host
// What went wrong is kept by context: the primary one, and the one of its own that there may be.
std::string problems[2];
int own;                              // contexts that are not the primary one
thread_local std::vector<int> stack;  // of contexts, by their number in problems
#define problem problems[stack.empty() ? 0 : stack.back()]
int capability = getenv("STHENO_EMULATED_CAPABILITY") ? atoi(getenv("STHENO_EMULATED_CAPABILITY")) : 80;

#define LOCKED std::lock_guard<std::recursive_mutex> locked(lock)

// entry_params finds ".entry name(" and counts the parameters and their bytes.
bool entry_params(const std::string &ptx, const std::string &name, std::vector<size_t> &sizes) {
  size_t at = ptx.find(".entry " + name + "(");
  if (at == std::string::npos) return false;
  size_t end = ptx.find(')', at);
  for (size_t p = ptx.find(".param", at); p != std::string::npos && p < end; p = ptx.find(".param", p + 1)) {
    size_t bits = 0, i = ptx.find_first_of("bufs", p + 7);
    // Forms: .param .u64 n, .param .u64 .ptr .align 1 n, .param .align 8 .b8 n[16]
    size_t dot = ptx.find('.', p + 6);
    std::string word = ptx.substr(dot, 6);
    if (word == ".align") dot = ptx.find('.', dot + 1);
    i = dot + 2;
    while (isdigit(ptx[i])) bits = bits * 10 + (ptx[i++] - '0');
    size_t count = 1, stop = ptx.find_first_of(",)", p);
    size_t bracket = ptx.find('[', p);
    if (bracket < stop) count = strtoul(ptx.c_str() + bracket + 1, nullptr, 10);
    sizes.push_back(bits / 8 * count);
  }
  return true;
}

// inside says whether [p, p+n) lies in one allocation.
bool inside(Address p, size_t n) {
  auto it = memory.upper_bound(p);
  if (it == memory.begin()) return false;
  --it;
  return p >= it->first && p + n <= it->first + it->second.size;
}

CUresult take(Address *p, size_t n) {
  LOCKED;
  if (stack.empty()) return invalid_context;
  if (n == 0) return invalid_value;
  if (n > (size_t)4 << 30 || in_use + n > memory_limit) return 2;
  size_t room = (n + 255) / 256 * 256;
  unsigned char *base = (unsigned char *)aligned_alloc(256, room + 2 * guard);
  if (!base) return 2;
  memset(base, 0xff, room + 2 * guard);
  *p = (Address)(base + guard);
  memory[*p] = {base, n};
  in_use += n;
  return ok;
}
}  // namespace

extern "C" {
CUresult cuInit(unsigned) { return ok; }
CUresult cuDriverGetVersion(int *v) { *v = 12000; return ok; }
CUresult cuGetErrorName(CUresult, const char **s) { *s = nullptr; return invalid_value; }
CUresult cuGetErrorString(CUresult r, const char **s) {
  LOCKED;
  static std::string last;
  last = problem;
  *s = r == launch_failed || r == invalid_image || r == illegal_address ? last.c_str() : "of the emulated driver";
  return ok;
}
CUresult cuDeviceGetCount(int *n) { *n = 1; return ok; }
CUresult cuDeviceGet(int *d, int i) { *d = i; return i == 0 ? ok : 101; }
CUresult cuDeviceGetName(char *s, int n, int) { snprintf(s, n, "emulated device"); return ok; }
CUresult cuDeviceTotalMem_v2(size_t *n, int) { *n = (size_t)8 << 30; return ok; }
CUresult cuDeviceGetAttribute(int *v, int a, int) {
  switch (a) {
    case 1: case 2: case 3: *v = 1024; return ok;
    case 4: *v = 64; return ok;
    case 5: *v = 2147483647; return ok;
    case 6: case 7: *v = 65535; return ok;
    case 10: *v = 32; return ok;
    case 16: *v = 4; return ok;
    case 38: *v = 1 << 20; return ok;
    case 75: *v = capability / 10; return ok;
    case 76: *v = capability % 10; return ok;
    case 83: *v = 1; return ok;
    case 97: *v = shared_most; return ok;
  }
  return invalid_value;
}
CUresult cuDevicePrimaryCtxRetain(void **c, int) { LOCKED; contexts++; *c = &contexts; return ok; }
CUresult cuDevicePrimaryCtxRelease_v2(int) {
  LOCKED;
  if (contexts == 0) return invalid_context;
  if (--contexts == 0) problems[0].clear();  // the next one is a new context
  return ok;
}
CUresult cuCtxCreate_v2(void **c, unsigned, int) {
  LOCKED;
  if (own) return invalid_value;  // one is enough for tests
  own = 1;
  *c = &own;
  stack.push_back(1);
  return ok;
}
CUresult cuCtxDestroy_v2(void *c) {
  LOCKED;
  if (c != &own || !own) return invalid_context;
  own = 0;
  problems[1].clear();
  return ok;
}
CUresult cuCtxPushCurrent_v2(void *c) {
  LOCKED;
  if (c != &contexts && (c != &own || !own)) return invalid_context;
  stack.push_back(c == &own);
  return ok;
}
CUresult cuCtxPopCurrent_v2(void **c) {
  LOCKED;
  if (stack.empty()) return invalid_context;
  *c = stack.back() ? &own : &contexts;
  stack.pop_back();
  return ok;
}
CUresult cuCtxSynchronize() { LOCKED; return problem.empty() ? ok : launch_failed; }
CUresult cuMemGetInfo_v2(size_t *f, size_t *t) { LOCKED; *t = memory_limit; *f = in_use < memory_limit ? memory_limit - in_use : 0; return ok; }
CUresult cuMemAlloc_v2(Address *p, size_t n) { return take(p, n); }
CUresult cuMemAllocManaged(Address *p, size_t n, unsigned) { return take(p, n); }
CUresult cuMemFree_v2(Address p) {
  LOCKED;
  auto it = memory.find(p);
  if (it == memory.end()) return invalid_value;
  Block b = it->second;
  memory.erase(it);
  in_use -= b.size;
  bool touched = false;
  for (size_t i = 0; i < guard; i++) touched |= b.base[i] != 0xff;
  size_t room = (b.size + 255) / 256 * 256;
  for (size_t i = guard + b.size; i < room + 2 * guard; i++) touched |= b.base[i] != 0xff;
  free(b.base);
  if (!touched) return ok;
  problem = "a kernel wrote outside of its memory";
  return illegal_address;
}
CUresult cuMemcpyHtoD_v2(Address d, const void *s, size_t n) { LOCKED; if (!inside(d, n)) return invalid_value; memmove((void *)d, s, n); copied[0] += n; return ok; }
CUresult cuMemcpyDtoH_v2(void *d, Address s, size_t n) { LOCKED; if (!inside(s, n)) return invalid_value; memmove(d, (void *)s, n); copied[1] += n; return problem.empty() ? ok : launch_failed; }
CUresult cuMemcpyDtoDAsync_v2(Address d, Address s, size_t n, void *) { LOCKED; if (!inside(d, n) || !inside(s, n)) return invalid_value; memmove((void *)d, (void *)s, n); return ok; }
CUresult cuMemsetD8Async(Address d, unsigned char v, size_t n, void *) { LOCKED; if (!inside(d, n)) return invalid_value; memset((void *)d, v, n); return ok; }
CUresult cuModuleLoadData(void **m, const char *image) {
  LOCKED;
  if (stack.empty()) return invalid_context;
  if (!strstr(image, ".version") || !strstr(image, ".target")) {
    problem = "not PTX";
    return invalid_image;
  }
  if (strstr(image, ".target sm_90a") && capability != 90) return no_binary;
  *m = new Module{image, {}};
  handles[*m] = 1;
  return ok;
}
CUresult cuModuleUnload(void *m) {
  LOCKED;
  if (handles[m] != 1) return invalid_handle;
  handles.erase(m);
  for (auto &f : ((Module *)m)->functions) delete f.second;
  delete (Module *)m;
  return ok;
}
CUresult cuModuleGetFunction(void **f, void *m, const char *name) {
  LOCKED;
  if (handles[m] != 1) return invalid_handle;
  Module *mod = (Module *)m;
  std::vector<size_t> sizes;
  const cuemu::Kernel *k = cuemu::find(name);
  if (!entry_params(mod->ptx, name, sizes) || !k) return not_found;
  bool same = (int)sizes.size() == k->params;
  for (size_t i = 0; same && i < sizes.size(); i++) same = sizes[i] == k->sizes[i];
  if (!same) {
    problem = std::string("the parameters of ") + name + " in PTX are not those of the source";
    return invalid_image;
  }
  Function *&fn = mod->functions[name];
  if (!fn) fn = new Function{k};
  *f = fn;
  return ok;
}
CUresult cuFuncGetAttribute(int *v, int a, void *f) {
  *v = a == 0 ? ((Function *)f)->kernel->threads : 0;
  return ok;
}
CUresult cuFuncSetAttribute(void *f, int a, int v) {
  if (a != 8 || v > shared_most) return invalid_value;
  ((Function *)f)->dynamic = v;
  return ok;
}
CUresult cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *,
                        void **params, void **) {
  LOCKED;
  if (stack.empty()) return invalid_context;
  Function *fn = (Function *)f;
  unsigned threads = bx * by * bz;
  if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || !threads || threads > 1024 || (int)threads > fn->kernel->threads) return invalid_value;
  if ((int)shared > fn->dynamic) return invalid_value;
  launches[fn->kernel->name]++;
  const char *wrong = cuemu::launch(*fn->kernel, {gx, gy, gz}, {bx, by, bz}, shared, params);
  if (!wrong) return ok;
  problem = std::string(fn->kernel->name) + ": " + wrong;
  return launch_failed;
}
CUresult cuStreamCreate(void **s, unsigned) { LOCKED; *s = malloc(1); handles[*s] = 2; return ok; }
CUresult cuStreamDestroy_v2(void *s) { LOCKED; if (handles[s] != 2) return invalid_handle; handles.erase(s); free(s); return ok; }
CUresult cuStreamQuery(void *) { return ok; }
CUresult cuStreamSynchronize(void *) { return ok; }
CUresult cuStreamWaitEvent(void *, void *, unsigned) { return ok; }
CUresult cuEventCreate(void **e, unsigned) { LOCKED; *e = malloc(1); handles[*e] = 3; return ok; }
CUresult cuEventDestroy_v2(void *e) { LOCKED; if (handles[e] != 3) return invalid_handle; handles.erase(e); free(e); return ok; }
CUresult cuEventRecord(void *, void *) { return ok; }
CUresult cuEventSynchronize(void *) { return ok; }
CUresult cuEventElapsedTime(float *ms, void *, void *) { *ms = 0; return ok; }

// For tests.
void emulator_schedule(unsigned seed) { LOCKED; cuemu::set_schedule(seed); }
// emulator_limit sets how many bytes may be held, 0 for as many as usual, and returns how many are.
int64_t emulator_limit(int64_t n) { LOCKED; memory_limit = n ? (size_t)n : (size_t)8 << 30; return (int64_t)in_use; }
void emulator_remove_barrier(int n) { LOCKED; cuemu::removed_barrier = n; }
int emulator_held() {
  LOCKED;
  int n = contexts + own + (int)memory.size();
  for (auto &h : handles) n += h.second != 0;
  return n;
}
int emulator_launches(const char *kernel) { LOCKED; return launches[kernel]; }
void emulator_capability(int c) { LOCKED; capability = c; }
int emulator_modules() {
  LOCKED;
  int n = 0;
  for (auto &h : handles) n += h.second == 1;
  return n;
}
int64_t emulator_copied(int to_host) { LOCKED; return copied[to_host]; }
}
