// Switching between stacks.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)

struct Fiber { void *sp; };

// Callee-saved registers go to the old stack and come from the new one. The floating-point control words never differ.
extern "C" void cuemu_switch(void **save, void *to);
__asm__(
    ".text\n.globl cuemu_switch\n.hidden cuemu_switch\n.type cuemu_switch,@function\ncuemu_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size cuemu_switch,.-cuemu_switch\n");

inline void switch_fiber(Fiber *from, Fiber *to) { cuemu_switch(&from->sp, to->sp); }
inline void make_fiber(Fiber *f, char *stack, size_t size, void (*entry)()) {
  void **sp = (void **)(((uintptr_t)stack + size) & ~(uintptr_t)15);
  *--sp = nullptr;  // entry never returns; the stack is as after a call
  *--sp = (void *)entry;
  sp -= 6;
  memset(sp, 0, 6 * sizeof *sp);
  f->sp = sp;
}

#else
#include <ucontext.h>

struct Fiber { ucontext_t context; };
inline void switch_fiber(Fiber *from, Fiber *to) { swapcontext(&from->context, &to->context); }
inline void make_fiber(Fiber *f, char *stack, size_t size, void (*entry)()) {
  getcontext(&f->context);
  f->context.uc_stack.ss_sp = stack;
  f->context.uc_stack.ss_size = size;
  f->context.uc_link = nullptr;
  makecontext(&f->context, entry, 0);
}

#endif
