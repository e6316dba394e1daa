/*
 * Lets User-Mode Linux set the registers of its processes on machines with AMX.
 *
 * Its buffer for them ends before the tiles of AMX, and the kernel of such a machine takes all
 * registers or none (EFAULT, and the guest panics: "ptrace set fp regs failed, errno = 14"). So
 * what is missing is taken from the process itself. The tiles are left empty: nobody in the guest
 * can have asked for the permission to use them.
 *
 * Preloaded into linux.uml, which calls ptrace(2) by way of libc.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <linux/ptrace.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

/* XSTATE_BV, and in it the components of AMX: Intel SDM, volume 1, chapter 13. */
#define STATES_OFFSET 512
#define TILE_STATES ((uint64_t)3 << 17)

typedef long (*ptrace_function)(unsigned long, unsigned long, unsigned long, void *);

static ptrace_function next_ptrace;
/* Not on the stack: the guest's kernel has little of it. It sets registers one call at a time. */
static unsigned char whole[1 << 16] __attribute__((aligned(64)));

__attribute__((constructor)) static void find_next(void)
{
	next_ptrace = (ptrace_function)dlsym(RTLD_NEXT, "ptrace");
}

long ptrace(unsigned long request, unsigned long pid, unsigned long address, void *data)
{
	struct iovec present = {whole, sizeof(whole)};
	const struct iovec *given = data;
	uint64_t states;

	if (request != PTRACE_SETREGSET || address != NT_X86_XSTATE)
		return next_ptrace(request, pid, address, data);
	if (next_ptrace(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &present) < 0)
		return -1;
	if (present.iov_len <= given->iov_len)
		return next_ptrace(request, pid, address, data);
	memcpy(whole, given->iov_base, given->iov_len);
	memcpy(&states, whole + STATES_OFFSET, sizeof(states));
	states &= ~TILE_STATES;
	memcpy(whole + STATES_OFFSET, &states, sizeof(states));
	return next_ptrace(request, pid, NT_X86_XSTATE, &present);
}
