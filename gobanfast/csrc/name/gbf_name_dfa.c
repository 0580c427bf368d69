/* Subset construction (Rabin and Scott 1959) and minimisation by refinement (Moore 1956) over the classes of symbols
 * that a group of globs tells apart. See DESIGN.md, "Names: globs". */
#include "name/gbf_name_dfa.h"

#include <stdlib.h>

/* Distinct lists of uint32, numbered from 0 in order of arrival. */
typedef struct {
    uint32_t *pool, *offsets, *slots; /* list i is pool[offsets[i]..offsets[i + 1]); slots hold number + 1 */
    uint64_t pool_room, pool_used, room, mask;
    uint32_t count;
} interner;

static void interner_free(interner *in)
{
    free(in->pool);
    free(in->offsets);
    free(in->slots);
    memset(in, 0, sizeof *in);
}

static uint64_t list_hash(const uint32_t *list, uint64_t count)
{
    uint64_t h = count;
    for (uint64_t i = 0; i < count; i++)
        h = ((h ^ list[i]) * UINT64_C(0x9E3779B97F4A7C15)) ^ (h >> 29);
    return h ^ h >> 32;
}

static int interner_grow(interner *in, uint64_t count)
{
    if (in->pool == NULL || in->pool_used + count > in->pool_room) {
        uint64_t room = 2 * (in->pool_used + count) + 64;
        uint32_t *pool = realloc(in->pool, room * sizeof *pool);
        if (pool == NULL)
            return 0;
        in->pool = pool;
        in->pool_room = room;
    }
    if (in->count + 1 < in->room)
        return 1;
    uint64_t room = in->room ? 2 * in->room : 64;
    uint32_t *offsets = realloc(in->offsets, (room + 1) * sizeof *offsets);
    if (offsets == NULL)
        return 0;
    in->offsets = offsets;
    in->offsets[0] = 0;
    in->room = room;
    uint32_t *slots = calloc(2 * room, sizeof *slots);
    if (slots == NULL)
        return 0;
    free(in->slots);
    in->slots = slots;
    in->mask = 2 * room - 1;
    for (uint32_t i = 0; i < in->count; i++) {
        uint64_t at = list_hash(in->pool + offsets[i], offsets[i + 1] - offsets[i]) & in->mask;
        while (slots[at] != 0)
            at = (at + 1) & in->mask;
        slots[at] = i + 1;
    }
    return 1;
}

/* Number of the list, or GBF_NONE when memory ran out. */
static uint32_t intern(interner *in, const uint32_t *list, uint64_t count)
{
    if (!interner_grow(in, count))
        return GBF_NONE;
    uint64_t at = list_hash(list, count) & in->mask;
    for (; in->slots[at] != 0; at = (at + 1) & in->mask) {
        uint32_t i = in->slots[at] - 1;
        if (in->offsets[i + 1] - in->offsets[i] == count &&
            memcmp(in->pool + in->offsets[i], list, count * sizeof *list) == 0)
            return i;
    }
    in->slots[at] = ++in->count;
    if (count > 0)
        memcpy(in->pool + in->pool_used, list, count * sizeof *list);
    in->pool_used += count;
    in->offsets[in->count] = (uint32_t)in->pool_used;
    return in->count - 1;
}

/* The group being built: all its items in a row, an accepting place after each glob's last item. */
typedef struct {
    uint64_t *symbols; /* by place; 0 at accepting places */
    uint8_t *flags;    /* 1 optional, 2 loop */
    uint32_t *number;  /* glob number, at accepting places */
    uint32_t *stamp;   /* last set this place was put into */
    uint32_t *set;     /* the set being gathered */
    uint32_t places, stamped, set_count;
    uint8_t class_of[GBF_SYMBOLS], member[GBF_SYMBOLS]; /* a symbol's class; a symbol of each class */
    uint32_t classes;
    interner sets, accepts;
    uint32_t *moves;     /* state x class -> state */
    uint32_t *accept_of; /* state -> number in `accepts` */
} group;

static void group_free(group *g)
{
    free(g->symbols);
    free(g->flags);
    free(g->number);
    free(g->stamp);
    free(g->set);
    free(g->moves);
    free(g->accept_of);
    interner_free(&g->sets);
    interner_free(&g->accepts);
}

static int group_begin(group *g, const gbf_glob *globs, uint64_t count)
{
    uint64_t places = 0;
    for (uint64_t i = 0; i < count; i++)
        places += globs[i].count + 1;
    memset(g, 0, sizeof *g);
    g->places = (uint32_t)places;
    g->symbols = calloc(places, sizeof *g->symbols);
    g->flags = calloc(places, 1);
    g->number = calloc(places, sizeof *g->number);
    g->stamp = calloc(places, sizeof *g->stamp);
    g->set = calloc(places, sizeof *g->set);
    g->moves = malloc((uint64_t)GBF_DFA_STATES * (GBF_SYMBOLS + 1) * sizeof *g->moves);
    g->accept_of = malloc(GBF_DFA_STATES * sizeof *g->accept_of);
    if (!g->symbols || !g->flags || !g->number || !g->stamp || !g->set || !g->moves || !g->accept_of)
        return 0;
    uint32_t at = 0;
    for (uint64_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < globs[i].count; j++, at++) {
            g->symbols[at] = globs[i].items[j].symbols;
            g->flags[at] = (uint8_t)(globs[i].items[j].optional | globs[i].items[j].loop << 1);
        }
        g->number[at++] = globs[i].number;
    }
    g->classes = 1;
    for (uint32_t place = 0; place < g->places; place++) {
        uint32_t before = g->classes;
        uint8_t split[GBF_SYMBOLS] = {0},
                outside[GBF_SYMBOLS] = {0}; /* by old class: new class of members; seen outside */
        for (uint32_t s = 1; s < GBF_SYMBOLS; s++)
            outside[g->class_of[s]] |= !(g->symbols[place] >> s & 1);
        for (uint32_t s = 1; s < GBF_SYMBOLS; s++) {
            uint8_t old = g->class_of[s];
            if (old >= before || !(g->symbols[place] >> s & 1) || !outside[old])
                continue;
            if (split[old] == 0)
                split[old] = (uint8_t)g->classes++;
            g->class_of[s] = split[old];
        }
    }
    for (uint32_t s = GBF_SYMBOLS; s-- > 1;)
        g->member[g->class_of[s]] = (uint8_t)s;
    return 1;
}

/* Puts a place and, past optional items, those after it into the set. */
static void reach(group *g, uint32_t place)
{
    for (;; place++) {
        if (g->stamp[place] == g->stamped)
            return;
        g->stamp[place] = g->stamped;
        uint32_t at = g->set_count++;
        for (; at > 0 && g->set[at - 1] > place; at--)
            g->set[at] = g->set[at - 1];
        g->set[at] = place;
        if (!(g->flags[place] & 1))
            return;
    }
}

static uint32_t accept_list(group *g, uint32_t state)
{
    g->set_count = 0;
    for (uint32_t i = g->sets.offsets[state]; i < g->sets.offsets[state + 1]; i++) {
        uint32_t place = g->sets.pool[i];
        if (g->symbols[place] != 0)
            continue;
        uint32_t number = g->number[place], at = g->set_count;
        while (at > 0 && g->set[at - 1] > number)
            at--;
        if (at > 0 && g->set[at - 1] == number)
            continue;
        memmove(&g->set[at + 1], &g->set[at], (g->set_count - at) * sizeof *g->set);
        g->set[at] = number;
        g->set_count++;
    }
    return intern(&g->accepts, g->set, g->set_count);
}

typedef enum { BUILT, TOO_MANY, NO_MEMORY } outcome;

/* State 0 is the empty set (dead), state 1 the start. */
static outcome determinise(group *g, const gbf_glob *globs, uint64_t count, uint64_t *steps)
{
    uint64_t limit = *steps + GBF_DFA_STEPS;
    if (intern(&g->sets, g->set, 0) == GBF_NONE || intern(&g->accepts, g->set, 0) == GBF_NONE)
        return NO_MEMORY;
    g->stamped = 1;
    for (uint64_t i = 0, place = 0; i < count; place += globs[i++].count + 1)
        reach(g, (uint32_t)place);
    if (intern(&g->sets, g->set, g->set_count) == GBF_NONE)
        return NO_MEMORY;
    for (uint32_t state = 0; state < g->sets.count; state++) {
        if (g->sets.count >= GBF_DFA_STATES || *steps > limit)
            return TOO_MANY;
        if ((g->accept_of[state] = accept_list(g, state)) == GBF_NONE)
            return NO_MEMORY;
        for (uint32_t class = 0; class < g->classes; class ++) {
            g->stamped++;
            g->set_count = 0;
            for (uint32_t i = g->sets.offsets[state]; i < g->sets.offsets[state + 1]; i++) {
                uint32_t place = g->sets.pool[i];
                if (!(g->symbols[place] >> g->member[class] & 1))
                    continue;
                if (g->flags[place] & 2)
                    reach(g, place);
                reach(g, place + 1);
            }
            *steps += g->sets.offsets[state + 1] - g->sets.offsets[state] + 1;
            uint32_t to = intern(&g->sets, g->set, g->set_count);
            if (to == GBF_NONE)
                return NO_MEMORY;
            g->moves[(uint64_t)state * g->classes + class] = to;
        }
    }
    return BUILT;
}

/* Numbers the classes of equivalent states in of[state]; returns how many, or 0 when memory ran out. */
static uint32_t minimise(const group *g, uint32_t *of)
{
    uint32_t states = g->sets.count, count = 0, before;
    uint32_t row[GBF_SYMBOLS + 1];
    memcpy(of, g->accept_of, states * sizeof *of);
    do {
        interner rows = {0};
        uint32_t *next = malloc(states * sizeof *next);
        int good = next != NULL;
        for (uint32_t state = 0; good && state < states; state++) {
            row[0] = of[state];
            for (uint32_t class = 0; class < g->classes; class ++)
                row[1 + class] = of[g->moves[(uint64_t)state * g->classes + class]];
            good = (next[state] = intern(&rows, row, g->classes + 1)) != GBF_NONE;
        }
        before = count;
        count = rows.count;
        if (good)
            memcpy(of, next, states * sizeof *of);
        free(next);
        interner_free(&rows);
        if (!good)
            return 0;
    } while (count != before);
    return count;
}

static int grow(void **array, uint64_t count, uint64_t more, uint64_t item_bytes)
{
    void *bigger = realloc(*array, (count + more) * item_bytes);
    if (bigger == NULL)
        return 0;
    *array = bigger;
    return 1;
}

/* Appends the automaton. TOO_MANY, and nothing appended: it would be `far`, and can be split instead. */
static outcome emit(gbf_automata *to, const group *g, int can_split)
{
    uint32_t width = g->classes;
    uint32_t *of = malloc(g->sets.count * sizeof *of);
    uint32_t states = of == NULL ? 0 : minimise(g, of);
    uint64_t accepts = g->accepts.pool_used + 1;
    uint32_t far = states * width > UINT16_MAX, unit = far ? 1 : width;
    if (far && can_split) {
        free(of);
        return TOO_MANY;
    }
    if (states == 0 || !grow((void **)&to->cells, to->cell_count, (uint64_t)states * width, sizeof *to->cells) ||
        !grow((void **)&to->lists, to->list_count, states, sizeof *to->lists) ||
        !grow((void **)&to->accepts, to->accept_count, accepts, sizeof *to->accepts) ||
        !grow((void **)&to->automata, to->automaton_count, 1, sizeof *to->automata)) {
        free(of);
        return NO_MEMORY;
    }
    if (to->accept_count == 0)
        to->accepts[to->accept_count++] = GBF_LAST_GLOB; /* list 0 means none */
    uint32_t first_list = (uint32_t)to->accept_count;
    for (uint32_t i = 1; i < g->accepts.count; i++) { /* list 0 of a group is the empty one */
        uint32_t begin = g->accepts.offsets[i], end = g->accepts.offsets[i + 1];
        memcpy(to->accepts + first_list + begin, g->accepts.pool + begin, (end - begin) * sizeof *to->accepts);
        to->accepts[first_list + end - 1] |= GBF_LAST_GLOB;
    }
    to->accept_count += g->accepts.pool_used;
    for (uint32_t state = 0; state < g->sets.count; state++) {
        uint16_t *row = to->cells + to->cell_count + (uint64_t)of[state] * width;
        uint32_t list = g->accept_of[state];
        to->lists[to->list_count + of[state]] = list == 0 ? 0 : first_list + g->accepts.offsets[list];
        for (uint32_t class = 0; class < width; class ++)
            row[class] = (uint16_t)(of[g->moves[(uint64_t)state * width + class]] * unit);
    }
    gbf_automaton *automaton = &to->automata[to->automaton_count++];
    memset(automaton, 0, sizeof *automaton);
    automaton->cells = (uint32_t)to->cell_count;
    automaton->lists = (uint32_t)to->list_count;
    automaton->states = (uint16_t)states;
    automaton->start = (uint16_t)of[1];
    automaton->width = (uint16_t)width;
    automaton->more = 1;
    automaton->far = (uint8_t)far;
    memcpy(automaton->class_of, g->class_of, sizeof g->class_of);
    to->cell_count += (uint64_t)states * width;
    to->list_count += states;
    free(of);
    return BUILT;
}

static gbf_status add(gbf_automata *to, const gbf_glob *globs, uint64_t count, gbf_fault *fault)
{
    group g;
    outcome result = group_begin(&g, globs, count) ? determinise(&g, globs, count, &to->steps) : NO_MEMORY;
    if (result == BUILT)
        result = emit(to, &g, count > 1);
    group_free(&g);
    if (result == NO_MEMORY)
        return gbf_refuse(fault, GBF_NO_MEMORY, "out of memory", 0);
    if (to->list_count > GBF_DFA_STATES_ALL)
        return gbf_refuse(fault, GBF_BAD_INPUT, "globs need more than 262144 automaton states", globs[0].number);
    if (to->steps > GBF_DFA_STEPS_ALL)
        return gbf_refuse(fault, GBF_BAD_INPUT, "globs need more than 268435456 steps to compile", globs[0].number);
    if (result == BUILT)
        return GBF_OK;
    if (count == 1)
        return gbf_refuse(fault, GBF_BAD_INPUT, "glob needs more than 16384 automaton states", globs[0].number);
    gbf_status status = add(to, globs, count / 2, fault);
    return status == GBF_OK ? add(to, globs + count / 2, count - count / 2, fault) : status;
}

static uint32_t loops(const gbf_glob *glob)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < glob->count; i++)
        found += glob->items[i].loop + (glob->items[i].loop && (glob->items[i].symbols >> gbf_symbol['.'] & 1) ? 2 : 0);
    return found;
}

/* Costly globs last, so that a split puts them apart from the cheap ones. */
static int by_cost(const void *a, const void *b)
{
    const gbf_glob *x = a, *y = b;
    uint32_t cost_x = loops(x), cost_y = loops(y);
    if (cost_x != cost_y)
        return cost_x < cost_y ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

gbf_status gbf_automata_add(gbf_automata *to, gbf_glob *globs, uint64_t count, gbf_fault *fault)
{
    qsort(globs, count, sizeof *globs, by_cost);
    gbf_status status = add(to, globs, count, fault);
    if (status == GBF_OK)
        to->automata[to->automaton_count - 1].more = 0;
    return status;
}

void gbf_automata_free(gbf_automata *automata)
{
    free(automata->automata);
    free(automata->cells);
    free(automata->lists);
    free(automata->accepts);
}
