// What warpgroup.cuh has on a card of compute capability 9.0, with all that a card leaves open done in the way that the schedule chooses:
//
//   - A copy into shared memory leaves NaN there until it lands. It lands at once (schedule 0), or not before nobody can go on without it,
//     and in any order.
//   - A product reads registers and shared memory at once, or not before somebody waits for it and nobody else can go on. Its results are NaN
//     until then, and whoever writes to them meanwhile is found out.
//   - When only copies and products are left to go on, schedule 1 has products first and then the latest copy, 2 the earliest copy first, 3
//     products and then the earliest copy; others choose by chance.
#pragma once
#include "cuemu.h"

namespace cuemu {
uint32_t shared_address(const void *p);
void barrier_init(uint32_t bar, int arrivals);
void barrier_show();
void barrier_arrive(uint32_t bar, int bytes);
bool barrier_wait(uint32_t bar, int bit, bool patient);
void copy_bulk(uint32_t to, const void *from, int bytes, uint32_t bar);
void set_registers(int n);
void products_fence();
void products_commit();
void products_wait(int n);
// product is a wgmma.mma_async of n lines and 16 steps of BF16. a null: the left side is in shared memory. across: the right side is.
void product(float *d, int n, const uint32_t *a, uint64_t a_matrix, uint64_t b_matrix, bool across, bool add);
}
