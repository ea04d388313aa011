/* SPDX-License-Identifier: MIT */
/*
 * One load or store of a device's register, and nothing else.
 *
 * Order: accesses to one window happen in the order of the calls. On x86 the hardware keeps uncached accesses in order,
 * and only the compiler must not reorder them. On aarch64 the hardware keeps device memory in order with itself, but
 * not with ordinary memory such as a DMA buffer. Hence the barriers, which are those of Linux's readl and writel
 * (arch/arm64/include/asm/io.h). No processor keeps a write-combining mapping (resourceN_wc) in order with itself.
 *
 * Where nobody answers an access, an arm64 processor may raise a fault, of which the kernel makes SIGBUS; on any processor
 * it does so if it has taken the mapping away. So the instruction of an access has before it a mark, and the distance
 * to where the program goes on after such a fault, and a jump over both. bus_error.c handles the signal.
 */
#ifndef PYUIO_ACCESS_BUS_H
#define PYUIO_ACCESS_BUS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define OUT_OF_LINE static __attribute__((noinline, unused))
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#if defined(__x86_64__) || defined(__i386__)
#define AFTER_READ() __asm__ volatile("" ::: "memory")
#define BEFORE_WRITE() __asm__ volatile("" ::: "memory")
#elif defined(__aarch64__)
#define AFTER_READ() __asm__ volatile("dmb oshld" ::: "memory")
#define BEFORE_WRITE() __asm__ volatile("dmb oshst" ::: "memory")
#else
#define AFTER_READ() __sync_synchronize()
#define BEFORE_WRITE() __sync_synchronize()
#endif

/* Once these three are inlined, only the case of the constant width is left. */

INLINE unsigned long swapped(unsigned long value, int bits)
{
    switch (bits) {
    case 16: return __builtin_bswap16((uint16_t)value);
    case 32: return __builtin_bswap32((uint32_t)value);
    case 64: return (unsigned long)__builtin_bswap64(value);
    default: return value;
    }
}

/* The parts of an access in assembly. `failed` is 0, or 1 after a fault. One instruction with one address register is
 * what a hypervisor on aarch64 can decode. */
#define BUS_MARK 0x62757365 /* "esub" */
#if defined(__x86_64__)
#define GUARDED(instruction)                                                                                           \
    "xorl %k[failed], %k[failed]\n\tjmp 1f\n\t.long %c[mark], 3f - 1f\n1:\t" instruction "\n2:\n\t.subsection 1\n"          \
    "3:\tmovl $1, %k[failed]\n\tjmp 2b\n\t.previous"
#define LOAD_8 GUARDED("movzbl (%[at]), %k[value]")
#define LOAD_16 GUARDED("movzwl (%[at]), %k[value]")
#define LOAD_32 GUARDED("movl (%[at]), %k[value]")
#define LOAD_64 GUARDED("movq (%[at]), %q[value]")
#define STORE_8 GUARDED("movb %b[value], (%[at])")
#define STORE_16 GUARDED("movw %w[value], (%[at])")
#define STORE_32 GUARDED("movl %k[value], (%[at])")
#define STORE_64 GUARDED("movq %q[value], (%[at])")
#elif defined(__aarch64__)
#define GUARDED(instruction)                                                                                           \
    "mov %w[failed], wzr\n\tb 1f\n\t.word %c[mark], 3f - 1f\n1:\t" instruction "\n2:\n\t.subsection 1\n"                  \
    "3:\tmov %w[failed], #1\n\tb 2b\n\t.previous"
#define LOAD_8 GUARDED("ldrb %w[value], [%[at]]")
#define LOAD_16 GUARDED("ldrh %w[value], [%[at]]")
#define LOAD_32 GUARDED("ldr %w[value], [%[at]]")
#define LOAD_64 GUARDED("ldr %x[value], [%[at]]")
#define STORE_8 GUARDED("strb %w[value], [%[at]]")
#define STORE_16 GUARDED("strh %w[value], [%[at]]")
#define STORE_32 GUARDED("str %w[value], [%[at]]")
#define STORE_64 GUARDED("str %x[value], [%[at]]")
#endif

#ifdef GUARDED
#define LOAD(bits)                                                                                                     \
    __asm__ volatile(LOAD_##bits : [failed] "=&r"(failed), [value] "=&r"(*value) : [at] "r"(at), [mark] "i"(BUS_MARK)   \
                     : "cc", "memory")
#define STORE(bits)                                                                                                    \
    __asm__ volatile(STORE_##bits : [failed] "=&r"(failed) : [value] "r"(value), [at] "r"(at), [mark] "i"(BUS_MARK)     \
                     : "cc", "memory")
#else /* there a fault ends the program */
#define LOAD(bits) (*value = *(const volatile uint##bits##_t *)at)
#define STORE(bits) (*(volatile uint##bits##_t *)at = (uint##bits##_t)value)
#endif

/* One load without a barrier. Returns whether it was answered; *value is anything if not. */
INLINE bool load_plain(const volatile void *at, int bits, unsigned long *value)
{
    unsigned failed = 0;

    switch (bits) {
    case 8: LOAD(8); break;
    case 16: LOAD(16); break;
    case 32: LOAD(32); break;
    default:
#if UINTPTR_MAX > UINT32_MAX
        LOAD(64); /* on 64-bit processors only: inside() */
#endif
        break;
    }
    return !failed;
}

/* One store without a barrier. Returns whether it was answered, as far as the processor waits for that. */
INLINE bool store_plain(volatile void *at, unsigned long value, int bits)
{
    unsigned failed = 0;

    switch (bits) {
    case 8: STORE(8); break;
    case 16: STORE(16); break;
    case 32: STORE(32); break;
    default:
#if UINTPTR_MAX > UINT32_MAX
        STORE(64);
#endif
        break;
    }
    return !failed;
}

INLINE bool load(const volatile void *at, int bits, unsigned long *value)
{
    bool answered = load_plain(at, bits, value);

    AFTER_READ();
    return answered;
}

INLINE bool store(volatile void *at, unsigned long value, int bits)
{
    BEFORE_WRITE();
    return store_plain(at, value, bits);
}

/* For runs of accesses, whose width is no constant. */

OUT_OF_LINE bool load_to(unsigned char *to, const volatile unsigned char *from, size_t width)
{
    unsigned long value = 0;
    bool answered;

    switch (width) {
    case 1: answered = load_plain(from, 8, &value); memcpy(to, &(uint8_t){(uint8_t)value}, 1); break;
    case 2: answered = load_plain(from, 16, &value); memcpy(to, &(uint16_t){(uint16_t)value}, 2); break;
    case 4: answered = load_plain(from, 32, &value); memcpy(to, &(uint32_t){(uint32_t)value}, 4); break;
    default: answered = load_plain(from, 64, &value); memcpy(to, &value, sizeof value); break;
    }
    return answered;
}

OUT_OF_LINE bool store_from(volatile unsigned char *to, const unsigned char *from, size_t width)
{
    uint16_t value16;
    uint32_t value32;
    unsigned long value;

    switch (width) {
    case 1: return store_plain(to, *from, 8);
    case 2: memcpy(&value16, from, 2); return store_plain(to, value16, 16);
    case 4: memcpy(&value32, from, 4); return store_plain(to, value32, 32);
    default: memcpy(&value, from, sizeof value); return store_plain(to, value, 64);
    }
}

#endif
