/* SPDX-License-Identifier: BSD-3-Clause */
/* The few messages of RSIP that rsipperf speaks (RFC 3103 §8, §9). */
#ifndef BENCH_RSIP_MESSAGE_H
#define BENCH_RSIP_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

enum message { REGISTER = 2, DEREGISTER = 4, ASSIGN = 8, FREE = 12 };
enum parameter { ADDRESS = 1, PORTS = 2, CLIENT_ID = 4, BIND_ID = 5, ERROR_CODE = 8, COUNTER = 11 };

struct answer {
	uint8_t type;
	uint32_t counter;
	uint32_t client_id;
	uint32_t bind_id;
	uint32_t error;
	uint32_t address;
	uint16_t first_port;
	uint8_t ports;
};

static uint8_t *put(uint8_t *at, enum parameter type, uint16_t length, uint32_t value)
{
	*at++ = type;
	*at++ = length >> 8;
	*at++ = length;
	for (int shift = 8 * (length - 1); shift >= 0; shift -= 8)
		*at++ = value >> shift;
	return at;
}

struct request {
	enum message type;
	uint32_t client_id;
	uint32_t counter;
	uint32_t bind_id; /* Of FREE. */
	uint8_t ports; /* Of ASSIGN. */
};

/* Emit a request (RFC 3103 §9.2, §9.4, §9.8, §9.12, §10.1); returns its length. */
static unsigned int emit(const struct request *request, uint8_t *octets)
{
	uint8_t *at = octets + 4;
	unsigned int length;

	if (request->type != REGISTER)
		at = put(at, CLIENT_ID, 4, request->client_id);
	if (request->type == ASSIGN) {
		at = put(at, ADDRESS, 1, 1);
		at = put(at, PORTS, 1, request->ports);
		at = put(at, ADDRESS, 1, 1);
		at = put(at, PORTS, 1, 1);
	} else if (request->type == FREE) {
		at = put(at, BIND_ID, 4, request->bind_id);
	}
	at = put(at, COUNTER, 4, request->counter);
	length = at - octets;
	octets[0] = 1;
	octets[1] = request->type;
	octets[2] = length >> 8;
	octets[3] = length;
	return length;
}

static uint32_t number_of(const uint8_t *value, unsigned int length)
{
	uint32_t number = 0;

	for (unsigned int at = 0; at < length && at < 4; at++)
		number = number << 8 | value[at];
	return number;
}

/* Read an answer's parameters (RFC 3103 §8); the first address and ports are the local ones (§9.9). */
static bool parse(const uint8_t *octets, unsigned int length, struct answer *answer)
{
	if (length < 4 || octets[0] != 1 || (octets[2] << 8 | octets[3]) != (int)length)
		return false;
	answer->type = octets[1];
	for (unsigned int at = 4; at + 3 <= length;) {
		unsigned int size = octets[at + 1] << 8 | octets[at + 2];
		const uint8_t *value = octets + at + 3;

		if (at + 3 + size > length)
			return false;
		if (octets[at] == CLIENT_ID)
			answer->client_id = number_of(value, size);
		else if (octets[at] == BIND_ID)
			answer->bind_id = number_of(value, size);
		else if (octets[at] == ERROR_CODE)
			answer->error = number_of(value, size);
		else if (octets[at] == COUNTER)
			answer->counter = number_of(value, size);
		else if (octets[at] == ADDRESS && size == 5 && !answer->address)
			answer->address = number_of(value + 1, 4);
		else if (octets[at] == PORTS && size >= 3 && !answer->ports) {
			answer->ports = value[0];
			answer->first_port = number_of(value + 1, 2);
		}
		at += 3 + size;
	}
	return true;
}

#endif
