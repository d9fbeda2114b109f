// A processor with fewer instructions, for one process: cc -shared -fPIC processor.c -o processor.so
//
// LD_PRELOAD=processor.so PROCESSOR=avx2 PROGRAM: each CPUID instruction of the program traps, and
// is answered without what the level lacks. A library that chooses its code by CPUID then runs, at
// full speed, what it would run on such a processor. Needs Linux on x86-64 with CPUID faulting,
// else the program ends with status 77.
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { ARCH_SET_CPUID = 0x1012, TRAPS = 0, ANSWERS = 1, CANNOT = 77 };

// The bits that a level lacks: of leaf 1's ecx, and of leaf 7's ebx, ecx and edx. No level has
// leaf 7.1, with AVX-VNNI and what is newer.
typedef struct {
    const char *name;
    uint32_t ecx1, ebx7, ecx7, edx7;
} Level;

enum {
    FMA = 1 << 12,
    AVX = 1 << 28 | 1 << 29,  // and F16C
    AVX2 = 1 << 5,
    AVX512_VNNI = 1 << 11,
    AVX512_7C = 1 << 1 | 1 << 6 | 1 << 12 | 1 << 14,
    VECTORS_7C = 1 << 8 | 1 << 9 | 1 << 10,  // GFNI, VAES, VPCLMULQDQ
    AVX512_7D = 1 << 2 | 1 << 3 | 1 << 8 | 1 << 23,
    AMX = 1 << 22 | 1 << 24 | 1 << 25
};
static const uint32_t AVX512_7B = 1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31;

static const Level LEVELS[] = {
    {"vnni", 0, 0, 0, AMX},
    {"avx512", 0, 0, AVX512_VNNI, AMX},
    {"avx2", 0, AVX512_7B, AVX512_VNNI | AVX512_7C, AMX | AVX512_7D},
    {"avx", FMA, AVX512_7B | AVX2, AVX512_VNNI | AVX512_7C | VECTORS_7C, AMX | AVX512_7D},
    {"sse", FMA | AVX, AVX512_7B | AVX2, AVX512_VNNI | AVX512_7C | VECTORS_7C, AMX | AVX512_7D},
};
static const Level *level;

static void answer(greg_t *registers) {
    uint32_t a, b, c, d, leaf = (uint32_t)registers[REG_RAX], part = (uint32_t)registers[REG_RCX];
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, ANSWERS);
    __cpuid_count(leaf, part, a, b, c, d);
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, TRAPS);
    if (leaf == 1) c &= ~level->ecx1;
    if (leaf == 7 && part == 0) b &= ~level->ebx7, c &= ~level->ecx7, d &= ~level->edx7;
    if (leaf == 7 && part) a = b = c = d = 0;
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
}

static void trapped(int number, siginfo_t *info, void *context) {
    (void)info;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (memcmp((const void *)registers[REG_RIP], "\x0f\xa2", 2) != 0) {
        signal(number, SIG_DFL);  // no CPUID: the fault comes again, and ends the program
        return;
    }
    answer(registers);
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("PROCESSOR");
    for (size_t i = 0; name && i < sizeof LEVELS / sizeof *LEVELS; i++)
        if (!strcmp(LEVELS[i].name, name)) level = LEVELS + i;
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
    if (!level || sigaction(SIGSEGV, &action, NULL) || syscall(SYS_arch_prctl, ARCH_SET_CPUID, TRAPS)) _exit(CANNOT);
}
