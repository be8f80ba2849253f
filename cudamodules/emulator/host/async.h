// Copies to shared memory that end later than they begin. A thread's copies are made when it waits for them, and not before: what is
// read too early is not there. A kernel waits for all of them before its end.
#pragma once
#include <cstring>
#include <vector>

#include "cuemu.h"

namespace cuemu {
struct Copy {
  void *to;
  const void *from;  // null for zeros
  size_t size;
  int group;
};
struct Copies {
  std::vector<Copy> waiting;
  int groups = 0;
};
inline Copies &copies() {
  static Copies of[1024];
  return of[threadIdx.x];
}
inline void copy_later(void *to, const void *from, size_t size) {
  Copies &c = copies();
  c.waiting.push_back({to, from, size, c.groups});
}
inline void end_group() { copies().groups++; }
// wait_for makes all copies but those of the `but` newest groups.
inline void wait_for(int but) {
  Copies &c = copies();
  std::vector<Copy> rest;
  for (const Copy &x : c.waiting) {
    if (x.group >= c.groups - but) {
      rest.push_back(x);
    } else if (x.from) {
      memcpy(x.to, x.from, x.size);
    } else {
      memset(x.to, 0, x.size);
    }
  }
  c.waiting = rest;
}
}  // namespace cuemu
