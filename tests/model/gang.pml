/* A gang of two machines as one attempt, for SPIN: all or none, one lost, the survivor's way into the next gang, zombies.
 *
 * protocol.pml has the races of two handlers on the row; here each step of the control plane is one write or one act, and
 * what may go wrong stands between them. The budgets come with -D (tests/model/cells.py); -DBUG_x removes a rule.
 * What is compared with the code: its table of moves, its lease; the rest is spotrelay/core/gang.py and reunion.py by hand.
 */

#include "moves.pml"
#include "lease.pml"

#define NONE 0
#define DONE 1
#define FAILED 2
#define ABSENT 0
#define UP 1
#define DOWN 2
#define M (2 * G)                                  /* machines: two for each generation */

c_decl {
\#include "observe.h"
}

/* ---- the run's row ---- */
byte att[G + 1];       /* state of each attempt */
byte mem[2 * G + 2];         /* members: rank k of generation g stands at 2 * g + k */
bit  closed[2 * G + 2];      /* that member is gone, or went over to the next gang */
bit  ran[G + 1];       /* it has taken the lease */
bit  drained[G + 1];
bit  over[G + 1];      /* the time in which its survivor waits has passed */
bit  told[M + 1];      /* EC2 asked for this machine, as the row knows */
byte cur, outcome;
byte intent;           /* NONE, RESERVED or ANSWERED */
byte keep;             /* the survivor that the open launch is to join */

#define RESERVED 1
#define ANSWERED 2

/* ---- what machines write ---- */
byte lgen, holder, floor = 1;
bit  done[G + 1];

/* ---- EC2, and what runs there ---- */
byte ec2[M + 1];
bit  process[M + 1];   /* longer than the machine, when it is a zombie */
bit  noticed[M + 1];
byte given[2];         /* what the open launch has made: its token gives the same again */
byte serves[M + 1];    /* the generation that its agent read from the row last */
byte ready[G + 1];     /* the machine that has uploaded a save of this generation and not yet sent the commit */
byte made;             /* machines so far */
bit  refused;          /* a launch into it was, so that the next one waits */
bit  sent[G + 1];
bit  shut;             /* no more machines in that zone */

byte resumed_max;
byte shorts = SHORTS, losses = LOSSES, zombies = ZOMBIES, notices = NOTICES, faults = FAULTS, shuts = SHUTS;
hidden byte seen_g, seen_to, i_;

#define OPEN_AT(i) (mem[i] != NONE && !closed[i])
#define IN(g, m) ((mem[2 * (g)] == m && !closed[2 * (g)]) || (mem[2 * (g) + 1] == m && !closed[2 * (g) + 1]))
#define ENDED(g) (att[g] == A_ENDED)
#define NAMES(g) (mem[2 * (g)] != NONE)
#define BROKEN (NAMES(cur) || cur == 0 -> cur : cur - 1)   /* the newest attempt that has members */

/* spotrelay/core/reunion.py::stays: nobody asked for it */
#define STAYS(i) (OPEN_AT(i) && !told[mem[i]])
#define ONE_STAYS(g) (STAYS(2 * (g)) != STAYS(2 * (g) + 1))
#define REUNION(g) ((g) != 0 && outcome == NONE && ran[g] && !over[g] && ONE_STAYS(g))
#define SURVIVOR(g) (STAYS(2 * (g)) -> mem[2 * (g)] : mem[2 * (g) + 1])
#define WAITS(g, i) ((REUNION(g) || (intent != NONE && keep == mem[i])) && STAYS(i) && (g) == BROKEN)

#define TO_FENCE (cur != 0 && ((ENDED(cur) && floor <= cur) || (cur > 1 && ENDED(cur - 1) && floor < cur) || \
                  (outcome != NONE && floor <= cur)))

inline moves(g, to) {
    if
    :: att[g] != to ->
        assert(ATTEMPT_MOVE(att[g], to));
        seen_g = g; seen_to = to;
        c_code { observe_attempt(now.att[seen_g], seen_to); };
        att[g] = to; seen_g = 0; seen_to = 0
    :: else
    fi
}

inline creates(place) {
    made++; ec2[made] = UP; process[made] = 1; given[place] = made
}

inline ends(m) {
    ec2[m] = DOWN;
    if
    :: process[m] -> process[m] = 0
    :: else
    fi
}

/* promise 2: no machine answers for two ranks, in one attempt or in two */
inline nobody_has_two_ranks() {
    i_ = 2;
    do
    :: i_ > 2 * G + 1 -> break
    :: else ->
        assert(!OPEN_AT(i_) || i_ >= 2 * cur || (mem[i_] != mem[2 * cur] && mem[i_] != mem[2 * cur + 1]));
        i_++
    od;
    i_ = 0;
    assert(mem[2 * cur] != mem[2 * cur + 1])
}

inline leaves_its_elder(m) {                       /* spotrelay/core/reunion.py::taken_over */
#ifndef BUG_TWO_RANKS
    if
    :: mem[2 * (cur - 1)] == m -> closed[2 * (cur - 1)] = 1
    :: else -> closed[2 * (cur - 1) + 1] = 1
    fi
#else
    skip
#endif
}

inline takes_in() {                                /* spotrelay/core/record.py::_machine_given */
    if
    :: keep != NONE && IN(cur - 1, keep) && !told[keep] ->
        leaves_its_elder(keep);
        mem[2 * cur] = keep; mem[2 * cur + 1] = given[0]
    :: else -> mem[2 * cur] = given[0]; mem[2 * cur + 1] = given[1]
    fi;
    moves(cur, A_BOOTING);
#ifndef BUG_HALF_A_GANG
    if
    :: mem[2 * cur + 1] == NONE -> moves(cur, A_ENDED)     /* a part of a gang is no gang */
    :: else
    fi;
#endif
    if
    :: mem[2 * cur + 1] != NONE -> nobody_has_two_ranks()
    :: else
    fi;
    intent = NONE; keep = NONE; given[0] = NONE; given[1] = NONE
}

inline is_lost(i) {
    closed[i] = 1;
    if
    :: att[i / 2] != A_ENDED && att[i / 2] != A_NONE && !done[i / 2] -> moves(i / 2, A_ENDED)
    :: else
    fi
}

#define NEEDS (outcome == NONE && intent == NONE && (cur == 0 || ENDED(cur) || att[cur] == A_DRAINING || \
               att[cur] == A_RESERVED))
#define TO_END(i) (OPEN_AT(i) && ec2[mem[i]] == UP && !told[mem[i]] && !WAITS(i / 2, i) && \
                   (outcome != NONE || ENDED(i / 2) || (att[i / 2] == A_DRAINING && drained[i / 2])))
#define SEES(i) \
    :: atomic { !TO_FENCE && OPEN_AT(i) && ec2[mem[i]] == DOWN -> is_lost(i) } \
    :: atomic { !TO_FENCE && OPEN_AT(i) && noticed[mem[i]] && !told[mem[i]] -> told[mem[i]] = 1; \
            if \
            :: att[i / 2] == A_BOOTING || att[i / 2] == A_RUNNING -> moves(i / 2, A_DRAINING) \
            :: else \
            fi } \
    :: atomic { !TO_FENCE && TO_END(i) -> ends(mem[i]) }

active proctype plane() {
    do
    :: atomic { TO_FENCE ->
            i_ = (ENDED(cur) || outcome != NONE -> cur : cur - 1);
            if
            :: SHUTS_OUT(i_ + 1) -> holder = NONE
            :: else
            fi;
            floor = i_ + 1; i_ = 0 }
    :: atomic { !TO_FENCE && NEEDS && cur == G && ENDED(cur) -> outcome = FAILED }    /* limits.max_launches */
    :: atomic { !TO_FENCE && NEEDS && (cur < G || att[cur] == A_RESERVED) && !(REUNION(BROKEN) && refused) ->
            keep = (REUNION(BROKEN) -> SURVIVOR(BROKEN) : NONE);
            if
            :: att[cur] != A_RESERVED -> cur++; att[cur] = A_RESERVED
            :: else
            fi;
            intent = RESERVED }
    :: atomic { !TO_FENCE && intent == RESERVED ->
            if
            :: given[0] != NONE -> intent = ANSWERED                        /* the token: what it answered before */
            :: given[0] == NONE && keep != NONE && shut -> refused = 1; intent = NONE; keep = NONE
            :: given[0] == NONE && keep != NONE && !shut -> creates(0); intent = ANSWERED
            :: given[0] == NONE && keep == NONE -> creates(0); creates(1); intent = ANSWERED
            :: given[0] == NONE && keep == NONE && shorts > 0 -> shorts--; creates(0); intent = ANSWERED
            :: given[0] == NONE && keep == NONE && faults > 0 -> faults--; creates(0); creates(1)
            :: given[0] == NONE && keep != NONE && !shut && faults > 0 -> faults--; creates(0)
            fi }
    :: atomic { !TO_FENCE && intent == ANSWERED -> takes_in() }
#ifndef BUG_WAITS_FOR_EVER
    :: atomic { !TO_FENCE && REUNION(BROKEN) && keep == NONE && (ENDED(BROKEN) || att[BROKEN] == A_DRAINING) ->
            over[BROKEN] = 1 }
#endif
    :: atomic { !TO_FENCE && cur != 0 && att[cur] == A_BOOTING && lgen == cur -> ran[cur] = 1; moves(cur, A_RUNNING) }
    :: atomic { !TO_FENCE && cur != 0 && outcome == NONE && done[cur] && !ENDED(cur) && lgen == cur && floor <= cur ->
            moves(cur, A_ENDED); outcome = DONE }
    :: atomic { !TO_FENCE && cur > 1 && outcome == NONE && done[cur - 1] && !ENDED(cur - 1) && floor < cur ->
            moves(cur - 1, A_ENDED); outcome = DONE }
    :: atomic { outcome != NONE && intent == RESERVED && given[0] == NONE -> intent = NONE; keep = NONE;
            if
            :: att[cur] == A_RESERVED -> moves(cur, A_ENDED)
            :: else
            fi }
    SEES(2) SEES(3) SEES(4) SEES(5)
#if G > 2
    SEES(6) SEES(7)
#endif
    od
}

/* ---- the agent on each machine, with its program ---- */

#define FIRST(g, m) ((g) != 0 && mem[2 * (g)] == m)
#define SERVED(g, i) (process[mem[i]] && serves[mem[i]] == g)
#define WHOLE(g) (mem[2 * (g) + 1] != NONE && SERVED(g, 2 * (g)) && SERVED(g, 2 * (g) + 1))
#define TAKEN_BACK(g) (noticed[mem[2 * (g)]] || noticed[mem[2 * (g) + 1]])
#ifdef BUG_HOLDER_ALONE
#define COMMITS(g, m) (holder == m)
#else
#define COMMITS(g, m) MAY_COMMIT(g, m)
#endif

/* A save that was uploaded may be committed at any time after: by a zombie, or by what a survivor ran before. */
#define SENDS(g) \
    :: atomic { process[m] && ready[g] == m -> ready[g] = NONE; sent[g] = 1; \
            if \
            :: COMMITS(g, m) -> assert(g == resumed_max) \
            :: else \
            fi }

proctype agent(byte m) {
    do
    :: atomic { process[m] && outcome == NONE && cur != 0 && serves[m] != cur && IN(cur, m) && !ENDED(cur) ->
            serves[m] = cur }
    :: atomic { WHOLE(serves[m]) && FIRST(serves[m], m) && MAY_TAKE(serves[m], m) && !MAY_COMMIT(serves[m], m) && \
                !drained[serves[m]] ->
            lgen = serves[m]; holder = m;
            assert(serves[m] > resumed_max);
            resumed_max = serves[m] }
    :: atomic { WHOLE(serves[m]) && FIRST(serves[m], m) && MAY_COMMIT(serves[m], m) && !sent[serves[m]] && \
                !ready[serves[m]] ->
            ready[serves[m]] = m }
    SENDS(1) SENDS(2)
#if G > 2
    SENDS(3)
#endif
    :: atomic { WHOLE(serves[m]) && FIRST(serves[m], m) && MAY_COMMIT(serves[m], m) && TAKEN_BACK(serves[m]) ->
            holder = NONE; drained[serves[m]] = 1 }
    :: atomic { WHOLE(serves[m]) && FIRST(serves[m], m) && MAY_COMMIT(serves[m], m) && !TAKEN_BACK(serves[m]) && \
                !done[serves[m]] ->
            done[serves[m]] = 1 }
    od
}

/* ---- the world ---- */

#define EC2_MUST(m) \
    :: atomic { noticed[m] && ec2[m] == UP -> ends(m) }
#define EC2_MAY(m) \
    :: atomic { notices > 0 && ec2[m] == UP && !noticed[m] -> notices--; noticed[m] = 1 } \
    :: atomic { losses > 0 && ec2[m] == UP -> losses--; ends(m) } \
    :: atomic { losses > 0 && zombies > 0 && ec2[m] == UP -> losses--; zombies--; ec2[m] = DOWN }
#if G > 2
#define ALL(each) each(1) each(2) each(3) each(4) each(5) each(6)
#define NO_MACHINE_IS_UP (ec2[1] != UP && ec2[2] != UP && ec2[3] != UP && ec2[4] != UP && ec2[5] != UP && ec2[6] != UP)
#else
#define ALL(each) each(1) each(2) each(3) each(4)
#define NO_MACHINE_IS_UP (ec2[1] != UP && ec2[2] != UP && ec2[3] != UP && ec2[4] != UP)
#endif

active proctype world() {
    do
    ALL(EC2_MAY)
    ALL(EC2_MUST)
    :: atomic { shuts > 0 && !shut -> shuts--; shut = 1 }
    :: break
    od;
    do
    ALL(EC2_MUST)
    od
}

/* promises 2 and 5, where nothing can move any more: the run is over, and no machine of any gang is left */
active proctype ends_well() {
    timeout;
    assert(outcome != NONE);
    assert(NO_MACHINE_IS_UP)
}

init {
    atomic {
        run agent(1); run agent(2); run agent(3); run agent(4)
#if G > 2
        ; run agent(5); run agent(6)
#endif
    }
}
