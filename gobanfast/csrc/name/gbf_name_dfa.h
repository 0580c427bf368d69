/* Globs to minimised automata that read right to left. Cold: used by the table builder only. */
#ifndef GBF_NAME_DFA_H
#define GBF_NAME_DFA_H

#include "name/gbf_name.h"

/* One step of a glob: a set of symbols (bit gbf_symbol[byte]), taken once, or at most once, or any number of times. */
typedef struct {
    uint64_t symbols;
    uint32_t optional; /* 1: may be skipped */
    uint32_t loop;     /* 1: may be taken again (always optional too) */
} gbf_glob_item;

/* One way a glob may match, as items from right to left. A glob may have two. */
typedef struct {
    const gbf_glob_item *items;
    uint32_t count, number;
} gbf_glob;

enum {
    GBF_DFA_STATES = 16384,      /* in one automaton before it is split */
    GBF_DFA_STATES_ALL = 262144, /* in all automata of a table, minimised */
    GBF_DFA_STEPS = 1 << 22,     /* item moves tried for one automaton before it is split (about 20 ms) */
    GBF_DFA_STEPS_ALL = 1 << 28, /* for all of a table (about 1 s) */
};

/* What has been built so far; the arrays are malloc'ed and go into the block as they are. Start from zeros. */
typedef struct {
    gbf_automaton *automata;
    uint16_t *cells;
    uint32_t *lists, *accepts;
    uint64_t automaton_count, cell_count, list_count, accept_count; /* list_count: states of all */
    uint64_t steps;
} gbf_automata;

/* Appends automata that together accept `count` globs (count > 0); the last one has more = 0. When the limits above do not
 * allow it: GBF_BAD_INPUT, fault->offset = number of a glob that could not be placed. Sorts `globs`. */
gbf_status gbf_automata_add(gbf_automata *to, gbf_glob *globs, uint64_t count, gbf_fault *fault);
void gbf_automata_free(gbf_automata *automata);

#endif
