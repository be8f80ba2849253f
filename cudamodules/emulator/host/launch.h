// What the emulated driver asks of the emulator.
#pragma once
#include "cuemu.h"

namespace cuemu {
const Kernel *find(const char *name);
void set_schedule(unsigned seed);  // 0: threads in order, 1: backwards, others: by chance
// launch runs a kernel to its end. It returns what was wrong with it, or null.
const char *launch(const Kernel &k, dim3 grid, dim3 block, size_t shared, void **params);
}
