// Barriers in shared memory, copies into it, and products of warpgroups.
#include "warpgroup.h"

#include <deque>
#include <map>
#include <vector>

#include "schedule.h"

namespace cuemu {
namespace {
// Where dynamic shared memory begins: not on a boundary of 1024, which a kernel cannot count on.
constexpr uint32_t shared_base = 0x480;

struct Barrier {
  int arrivals, missing, by;
  int64_t bytes;
  unsigned phase;
  bool shown;
};
struct Copy {
  uint32_t to;
  const void *from;
  int bytes;
  uint32_t bar;
};
struct Product {
  float *d[32];
  const uint32_t *a[32];
  uint64_t a_matrix, b_matrix;
  int n;
  bool in_registers, across, add, done;
  bool same(const Product &p) const {
    return a_matrix == p.a_matrix && b_matrix == p.b_matrix && n == p.n && in_registers == p.in_registers && across == p.across && add == p.add;
  }
};
// Sums are those of registers that products are in flight for.
struct Sums {
  std::vector<float> v;
  int flying = 0;
};
struct Warp {
  std::vector<Product> open;
  std::deque<std::vector<Product>> groups;
  std::map<float *, Sums> sums;
  std::vector<Product> all;
  bool fenced = false;
  int registers = 0;
};

std::map<uint32_t, Barrier> barriers;
std::deque<Copy> copies;
std::vector<Warp> warps;

unsigned char *host_of(uint32_t address, size_t n) {
  if (address < shared_base || address + n > shared_base + dynamic_size()) {
    fail("an address outside of shared memory");
    return nullptr;
  }
  return dynamic_shared() + (address - shared_base);
}

Barrier *barrier_at(uint32_t bar) {
  auto it = barriers.find(bar);
  if (it != barriers.end()) return &it->second;
  fail("a barrier that was never begun");
  return nullptr;
}

void turn(Barrier &b) {
  if (b.missing || b.bytes) return;
  b.phase++;
  b.missing = b.arrivals;
}

void land(const Copy &c) {
  if (unsigned char *to = host_of(c.to, c.bytes)) memcpy(to, c.from, c.bytes);
  if (Barrier *b = barrier_at(c.bar)) {
    if (!b->shown) fail("a barrier that was not shown to copies");
    b->bytes -= c.bytes;
    turn(*b);
  }
}

float bf16(uint16_t bits) {
  uint32_t b = (uint32_t)bits << 16;
  float f;
  memcpy(&f, &b, 4);
  return f;
}

// element is number k of line i of a matrix in shared memory, as the PTX ISA has it («Matrix Descriptor Format», «Strides»).
float element(uint64_t matrix, bool across, int i, int k) {
  static const int widths[] = {16, 128, 64, 32};  // bytes of a row of the swizzle
  if (matrix & ~(0x3fffull | 0x3fffull << 16 | 0x3fffull << 32 | 3ull << 62)) fail("bits in a matrix descriptor that are not known here");
  const uint32_t start = (matrix & 0x3fff) << 4, leading = (matrix >> 16 & 0x3fff) << 4, stride = (matrix >> 32 & 0x3fff) << 4;
  const int width = widths[matrix >> 62], numbers = width / 2;
  uint32_t at;
  if (width == 16)
    at = across ? start + i / 8 * stride + k / 8 * leading + k % 8 * 16 + i % 8 * 2 : start + i / 8 * stride + k / 8 * leading + i % 8 * 16 + k % 8 * 2;
  else
    at = across ? start + i / numbers * leading + i % numbers * 2 + k / 8 * stride + k % 8 * width : start + i / 8 * stride + i % 8 * width + k * 2;
  at ^= at >> 3 & (width - 16);
  uint16_t bits = 0;
  if (unsigned char *p = host_of(at, 2)) memcpy(&bits, p, 2);
  return bf16(bits);
}

bool untouched(const float *d, int n) {
  for (int i = 0; i < n; i++) {
    uint32_t b;
    memcpy(&b, d + i, 4);
    if (b != 0xffffffffu) return false;
  }
  return true;
}

void compute(int warp, Product &p) {
  if (p.done) return;
  p.done = true;
  Warp &w = warps[warp];
  static float a[16][16], b[256][16];
  for (int r = 0; r < 16; r++)
    for (int k = 0; k < 16; k++)
      a[r][k] = p.in_registers ? bf16(p.a[r % 8 * 4 + k % 8 / 2][r / 8 + k / 8 * 2] >> k % 2 * 16) : element(p.a_matrix, false, warp % 4 * 16 + r, k);
  for (int i = 0; i < p.n; i++)
    for (int k = 0; k < 16; k++) b[i][k] = element(p.b_matrix, p.across, i, k);
  for (int lane = 0; lane < 32; lane++) {
    Sums &sums = w.sums[p.d[lane]];
    for (int i = 0; i < p.n / 2; i++) {
      const float *x = a[lane / 4 + i % 4 / 2 * 8], *y = b[i / 4 * 8 + lane % 4 * 2 + i % 2];
      double s = p.add ? sums.v[i] : 0;
      for (int k = 0; k < 16; k++) s += (double)x[k] * y[k];
      sums.v[i] = (float)s;
    }
  }
}

void finish(int warp, Product &p) {
  compute(warp, p);
  for (int lane = 0; lane < 32; lane++) {
    Sums &sums = warps[warp].sums[p.d[lane]];
    if (--sums.flying) continue;
    if (!untouched(p.d[lane], p.n / 2)) fail("registers of a product that was not waited for were written");
    memcpy(p.d[lane], sums.v.data(), p.n / 2 * sizeof(float));
    warps[warp].sums.erase(p.d[lane]);
  }
}

struct Arguments {
  float *d;
  const uint32_t *a;
  Product p;
};

void start(int warp, void **brought) {
  Warp &w = warps[warp];
  Product p = static_cast<Arguments *>(brought[0])->p;
  if (!w.fenced) fail("a product without a fence after the last wait");
  if (p.across && !p.in_registers) fail("a product that is not emulated");
  for (int lane = 0; lane < 32; lane++) {
    const Arguments *mine = static_cast<Arguments *>(brought[lane]);
    if (!mine->p.same(p)) fail("lanes of one warp in different products");
    p.d[lane] = mine->d;
    p.a[lane] = mine->a;
    Sums &sums = w.sums[mine->d];
    if (!sums.flying++)
      sums.v.assign(mine->d, mine->d + p.n / 2);
    else if (!untouched(mine->d, p.n / 2))
      fail("registers of a product that was not waited for were written");
    memset(mine->d, 0xff, p.n / 2 * sizeof(float));
  }
  w.all.push_back(p);
  if (schedule() == 0 || (schedule() > 3 && chance(4) == 0)) {
    // What is computed early comes after what was started before.
    for (auto &g : w.groups)
      for (auto &before : g) compute(warp, before);
    for (auto &before : w.open) compute(warp, before);
    compute(warp, p);
  }
  w.open.push_back(p);
}

void fence(int warp, void **) { warps[warp].fenced = true; }

void commit(int warp, void **) {
  Warp &w = warps[warp];
  w.groups.push_back(std::move(w.open));
  w.open.clear();
}

void wait_for(int warp, void **brought) {
  Warp &w = warps[warp];
  const int keep = *static_cast<int *>(brought[0]);
  w.fenced = false;
  while ((int)w.groups.size() > keep) {
    for (auto &p : w.groups.front()) finish(warp, p);
    w.groups.pop_front();
  }
}

void registers_of(int warp, void **brought) { warps[warp].registers = *static_cast<int *>(brought[0]); }
}  // namespace

uint32_t shared_address(const void *p) { return shared_base + (uint32_t)((const unsigned char *)p - dynamic_shared()); }

void barrier_init(uint32_t bar, int arrivals) {
  host_of(bar, 8);
  if (bar % 8) fail("a barrier that is not on a boundary of 8 bytes");
  barriers[bar] = {arrivals, arrivals, current_thread(), 0, 0, false};
}
void barrier_show() {
  for (auto &b : barriers)
    if (b.second.by == current_thread()) b.second.shown = true;
}
void barrier_arrive(uint32_t bar, int bytes) {
  Barrier *b = barrier_at(bar);
  if (!b) return;
  b->bytes += bytes;
  if (--b->missing < 0) fail("more arrivals than a barrier waits for");
  turn(*b);
}
bool barrier_wait(uint32_t bar, int bit, bool patient) {
  struct Wait {
    uint32_t bar;
    int bit;
  } w = {bar, bit};
  return wait_until(
      [](void *arg) {
        Wait *w = static_cast<Wait *>(arg);
        Barrier *b = barrier_at(w->bar);
        return !b || (int)(b->phase & 1) != w->bit;
      },
      &w, patient);
}
void copy_bulk(uint32_t to, const void *from, int bytes, uint32_t bar) {
  if (to % 16 || (uintptr_t)from % 16 || bytes % 16 || bytes <= 0) fail("a copy that is not in units of 16 bytes");
  if (unsigned char *p = host_of(to, bytes)) memset(p, 0xff, bytes);
  Copy c = {to, from, bytes, bar};
  if (schedule() == 0 || (schedule() > 3 && chance(4) == 0))
    land(c);
  else
    copies.push_back(c);
}

void set_registers(int n) {
  if (n % 8 || n < 24 || n > 256) fail("a number of registers that is not a multiple of 8 from 24 to 256");
  together(registers_of, &n);
}
void products_fence() { together(fence, nullptr); }
void products_commit() { together(commit, nullptr); }
void products_wait(int n) { together(wait_for, &n, true); }
void product(float *d, int n, const uint32_t *a, uint64_t a_matrix, uint64_t b_matrix, bool across, bool add) {
  Arguments mine = {d, a, {{}, {}, a_matrix, b_matrix, n, a != nullptr, across, add, false}};
  together(start, &mine);
}

void beside_begin() {
  barriers.clear();
  copies.clear();
  warps.assign((thread_count() + 31) / 32, {});
}
bool beside_step() {
  if (copies.empty()) return false;
  // Copies end in any order.
  const size_t which = schedule() == 1 ? copies.size() - 1 : schedule() <= 3 ? 0 : chance((unsigned)copies.size());
  Copy c = copies[which];
  copies.erase(copies.begin() + which);
  land(c);
  return true;
}
void beside_end(bool given_up) {
  if (given_up) return;
  if (!copies.empty()) fail("a copy that nobody waited for");
  for (auto &b : barriers)
    if (b.second.bytes) fail("a barrier whose bytes are not those that came");
  int64_t registers = 0;
  bool set = false;
  const int each = 65536 / thread_count() / 8 * 8;
  for (size_t w = 0; w < warps.size(); w++) {
    if (!warps[w].open.empty() || !warps[w].groups.empty()) fail("a product that nobody waited for");
    set |= warps[w].registers != 0;
    registers += 32 * (warps[w].registers ? warps[w].registers : each);
    const Warp &first = warps[w / 4 * 4];
    bool same = warps[w].registers == first.registers && warps[w].all.size() == first.all.size();
    for (size_t i = 0; same && i < first.all.size(); i++) same = warps[w].all[i].same(first.all[i]);
    if (!same) fail("warps of one warpgroup that do not do the same");
  }
  if (set && registers > 65536) fail("more registers than there are");
}
}  // namespace cuemu
