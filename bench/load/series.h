/* SPDX-License-Identifier: BSD-3-Clause */
/* A series of times, and what is told of it. */
#ifndef BENCH_SERIES_H
#define BENCH_SERIES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct series {
	float *values; /* Milliseconds. */
	uint64_t number;
};

static void keep(struct series *series, double seconds)
{
	series->values[series->number++] = seconds * 1000;
}

static int ascending(const void *one, const void *other)
{
	float a = *(const float *)one, b = *(const float *)other;

	return (a > b) - (a < b);
}

static void print_series(const char *name, struct series *series)
{
	qsort(series->values, series->number, sizeof(float), ascending);
	printf("\"%s\": {\"number\": %lu", name, series->number);
	if (series->number) {
		printf(", \"p50\": %.3f, \"p99\": %.3f, \"most\": %.3f", series->values[series->number / 2],
		       series->values[series->number * 99 / 100], series->values[series->number - 1]);
	}
	printf("}, ");
}

#endif
