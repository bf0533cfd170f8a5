/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How far two cores are from each other: the least time that a line of the cache takes to the other and back.
 *
 *     apart CORE CORE
 *
 * It looks for 20 ms and prints nanoseconds. A virtual machine's cores are not always where they were.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOOKING 20000000
#define ROUND_TRIPS 64

static _Alignas(128) atomic_uint ball; /* Odd: the other core has to send it back. */
static atomic_bool there, over;

static unsigned long now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1000000000ul + at.tv_nsec;
}

static void fail(const char *what, int error)
{
	fprintf(stderr, "apart: %s: %s\n", what, strerror(error));
	exit(2);
}

static cpu_set_t only(const char *core)
{
	cpu_set_t cores;

	CPU_ZERO(&cores);
	CPU_SET(atoi(core), &cores);
	return cores;
}

static void *other(void *unused)
{
	(void)unused;
	atomic_store(&there, true);
	while (!atomic_load(&over)) {
		unsigned int seen = atomic_load(&ball);

		if (seen & 1)
			atomic_store(&ball, seen + 1);
	}
	return NULL;
}

/* Both go before whatever else runs there. */
static pthread_t begin(const char *here, const char *elsewhere)
{
	cpu_set_t mine = only(here), its = only(elsewhere);
	pthread_attr_t how;
	pthread_t thread;
	int error;

	if (sched_setaffinity(0, sizeof(mine), &mine) ||
	    sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){ .sched_priority = 1 }))
		fail("no core for itself", errno);
	pthread_attr_init(&how);
	pthread_attr_setinheritsched(&how, PTHREAD_INHERIT_SCHED);
	error = pthread_attr_setaffinity_np(&how, sizeof(its), &its) ?: pthread_create(&thread, &how, other, NULL);
	if (error)
		fail("no other core", error);
	while (!atomic_load(&there))
		;
	return thread;
}

int main(int argc, char **argv)
{
	unsigned long least = -1ul, until;
	unsigned int turn = 0;
	pthread_t thread;

	if (argc != 3) {
		fprintf(stderr, "usage: apart CORE CORE\n");
		return 2;
	}
	thread = begin(argv[1], argv[2]);
	until = now() + LOOKING;
	while (now() < until) {
		unsigned long taken = now();

		for (int at = 0; at < ROUND_TRIPS; at++) {
			turn += 2;
			atomic_store(&ball, turn - 1);
			while (atomic_load(&ball) != turn)
				;
		}
		taken = now() - taken;
		if (taken < least)
			least = taken;
	}
	atomic_store(&over, true);
	pthread_join(thread, NULL);
	printf("%lu\n", least / ROUND_TRIPS);
	return 0;
}
