# The machine's only firmware: 4 KiB of ROM that end at 4 GiB, so that the reset vector (4 GiB - 16) is in them.
#
# The RAM image that image/ writes is already in memory when the machine starts. This code only has to reach 64-bit mode as
# the Linux boot protocol wants it (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol") and to jump to the kernel. A
# second reset is the guest's reboot, which is how it says that it is done: the machine is then switched off.
#
# Memory the image provides, from 1 MiB on (image/main.go writes it):
#   0x100000  page tables: the first GiB and the top 2 MiB (this ROM), one to one
#   0x104000  the hand-over record: magic, last byte + 1 of the image, kernel entry, boot parameters (4 bytes each)

        .set    PAGE_TABLES, 0x100000
        .set    RECORD,      0x104000
        .set    MAGIC,       0x6f6e6568         # little-endian "heno"
        .set    BLOCK,       0x10000            # at most the emulator's unit of memory allocation

        .text
        .globl  _start
_start:
        .code16
real:   cli
        lgdtl   %cs:(gdtr - 0xffff0000)         # cs has base 0xffff0000 until the first far jump
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0                      # PE
        ljmpl   $0x20, $protected

        .code32
protected:
        movw    $0x18, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        cmpl    $MAGIC, RECORD
        jne     off

        # The emulator backs guest memory with host blocks in the order of first touch, but loads an image as one
        # contiguous run. Touching the image in address order, and nothing before it, makes the two agree.
        movl    RECORD+4, %edx
        movl    $PAGE_TABLES, %ecx
touch:  movb    (%ecx), %al
        addl    $BLOCK, %ecx
        cmpl    %edx, %ecx
        jb      touch
        cmpl    $MAGIC, -4(%edx)                # the image ends in the magic, too: it is all where it should be
        jne     off
        movl    $0, RECORD                      # the next reset is the last

        movl    $PAGE_TABLES, %eax
        movl    %eax, %cr3
        movl    $0x20, %eax                     # PAE
        movl    %eax, %cr4
        movl    $0xc0000080, %ecx               # EFER
        rdmsr
        orl     $0x100, %eax                    # LME
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000000, %eax               # PG
        movl    %eax, %cr0
        ljmpl   $0x10, $long

        .code64
long:   movl    RECORD+12, %esi                 # rsi = boot parameters
        movl    RECORD+8, %eax
        jmp     *%rax

        .code32
off:    movl    $word, %esi
        movl    $word_end - word, %ecx
        movw    $0x8900, %dx                    # the emulator stops when this port has read "Shutdown"
        cld
        rep outsb
stop:   hlt
        jmp     stop

word:   .ascii  "Shutdown"
word_end:

        .balign 8
gdt:    .quad   0
        .quad   0
        .quad   0x00af9b000000ffff              # 0x10 64-bit code (the kernel's __BOOT_CS)
        .quad   0x00cf93000000ffff              # 0x18 flat data   (the kernel's __BOOT_DS)
        .quad   0x00cf9b000000ffff              # 0x20 32-bit code
gdtr:   .word   gdtr - gdt - 1
        .long   gdt

        .org    0xff0
        .code16
vector: jmp     real
        .org    0x1000
