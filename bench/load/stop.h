/* SPDX-License-Identifier: BSD-3-Clause */
/* To end in order when SIGTERM comes. */
#ifndef BENCH_STOP_H
#define BENCH_STOP_H

#include <signal.h>

static volatile sig_atomic_t stopped;

static void stop(int number)
{
	stopped = number;
}

#endif
