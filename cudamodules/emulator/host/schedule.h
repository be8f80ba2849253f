// What the parts of the emulator ask of its scheduler.
#pragma once
#include "cuemu.h"

namespace cuemu {
unsigned schedule();
unsigned chance(unsigned n);
int current_thread();
int thread_count();
void fail(const char *what);  // the launch is wrong; the first one counts
size_t dynamic_size();

// together waits until all lanes of the warp are in it, and has f called once with what they bring. With `last`, only when nobody else can
// go on, unless the schedule is 0.
void together(void (*f)(int warp, void **brought), void *mine, bool last = false);

// wait_until waits for what only others can change. It is false if everybody waits for somebody, and this one is patient no longer.
bool wait_until(bool (*ready)(void *), void *arg, bool patient);

// What goes on beside threads (warpgroup.cpp).
void beside_begin();
bool beside_step();                 // lets a copy land; false if there is none
void beside_end(bool given_up);     // a block has ended
}
