/* SPDX-License-Identifier: Apache-2.0
 *
 * pipe.h - join a local stream socket to a channel through the codec, both directions.
 *
 * Towards the channel, bytes are encoded with `out`; from it, decoded with `in`. Reading stops when the
 * channel has no room; consumed() is said when the socket has taken the bytes. When the socket pauses,
 * what is there is flushed (after 1 ms, if the link is busy anyway). EOF travels as the channel's finish and
 * arrives as shutdown(SHUT_WR). A turn of the loop takes 2 ms at most in each direction.
 */
#ifndef NOVA_PIPE_H
#define NOVA_PIPE_H

#include "codec.h"

struct nova_pipe;

struct nova_pipe_stats {
	struct nova_codec_stats out, in;
	uint64_t socket_in_bytes, socket_out_bytes; /* read from, written to the socket */
	uint64_t held_bytes;                        /* received, not yet taken by the socket */
	uint64_t longest_turn_us;     /* of the loop, in our hands: by the clock, also while others ran, */
	uint64_t longest_turn_cpu_us; /* and by the processor time that it took */
	uint64_t unacknowledged_bytes;              /* encoded, not yet consumed over there (or not yet said so) */
};

struct nova_pipe_options {
	struct nova_codec_options out, in;
	const struct nova_scanner_ops *scanner; /* for out; NULL: opaque */
};

/* From the loop, may free the pipe: a direction has ended, nothing is left to move in it (err NULL; bits: all
 * that have ended so far), or the pipe broke (err; then nothing moves any more). */
#define NOVA_PIPE_TO_CHANNEL 1u
#define NOVA_PIPE_TO_SOCKET 2u
typedef void (*nova_pipe_fn)(void *arg, unsigned ended, const struct nova_error *err);

/* fd (non-blocking) and channel are stolen, also on failure. channel_events of links is used to hook in. */
struct nova_pipe *nova_pipe_new(struct event_base *base, const struct nova_link_ops *links, int fd,
    struct nova_channel *channel, const struct nova_pipe_options *options, nova_pipe_fn fn, void *arg,
    struct nova_error *err);
struct nova_pipe *nova_pipe_free(struct nova_pipe *pipe);
void nova_pipe_stats(const struct nova_pipe *pipe, struct nova_pipe_stats *stats);
/* At most so many encoded bytes on the way (and one block): the socket is not read meanwhile. 0: no limit. */
void nova_pipe_limit(struct nova_pipe *pipe, uint64_t bytes);
/* Whether the end of what comes in is kept from the socket for now. */
void nova_pipe_keep_open(struct nova_pipe *pipe, bool keep);
/* Read nothing from the socket for so long (ms; 0: go on reading): what writes into it stands still. */
void nova_pipe_hold(struct nova_pipe *pipe, int ms);
/* Everything that was written into the socket so far has been read, and has left the encoder. */
bool nova_pipe_idle(const struct nova_pipe *pipe);
/* With out.codec NOVA_CODEC_AUTO: the codecs chosen so far (see nova_encoder_choices), and the part of a core
 * that encoding may take. */
const struct nova_codec_choice *nova_pipe_choices(const struct nova_pipe *pipe, size_t *count);
void nova_pipe_cpu_share(struct nova_pipe *pipe, double cpu_share);
/* Raw bytes and digest seen so far, to the channel (encoder) or to the socket (decoder). */
void nova_pipe_digest_out(const struct nova_pipe *pipe, uint8_t digest[16], uint64_t *raw_bytes);
void nova_pipe_digest_in(const struct nova_pipe *pipe, uint8_t digest[16], uint64_t *raw_bytes);

#endif
