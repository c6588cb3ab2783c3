/* Lease, launch, commit and handover of one run, for SPIN. docs/protocol.md says what is in here and what is not.
 *
 * Whoever may act is a process: two handlers of the control plane, the sweep's search for orphans, every machine,
 * and the world. Whatever may go wrong is a budget that the world may spend at any moment: crashes, lost replies,
 * launches that arrive late, refusals, harm, zombies. So every history is finite, and "it ends well" is checked
 * where nothing can move any more (`ends_well` below).
 *
 * The bounds and budgets come with -D (tests/model/bounds.py); -DBUG_x removes the rule behind a promise.
 */

#include "moves.pml"
#include "lease.pml"

#define NONE 0

c_decl {
\#include "observe.h"
}

/* ---- the run's row: one conditional write each, at the version that was read ---- */
byte att[G + 1];       /* state of each attempt; A_NONE before it is reserved */
byte inst[G + 1];      /* its machine */
bit  gone[G + 1];      /* EC2 said that the machine runs no more */
bit  ran[G + 1];       /* it was seen to have taken the lease */
bit  drained[G + 1];
bit  asked[G + 1];     /* EC2 was asked to end its machine */
byte cur;              /* newest generation */
byte intent;           /* number of the open launch */
byte forgen[L + 1];    /* the generation that each launch is for, in its request */
byte launches;         /* numbers given out; never again the same */
bit  paused;           /* a person wants it to rest */
bit  letgo[G + 1];     /* it drains because of that: EC2 will not take its machine */
byte outcome;          /* R_FAILED, R_SUCCEEDED, R_CANCELLED or NONE */
byte status = R_WAITING;
byte epoch;            /* losses and notices so far: a verdict from an earlier one no longer counts */
bit  due = 1;
bit  fresh[2];         /* whether a handler has read the newest version */

/* ---- what attempts write: the lease, exit reports, commits; and the verdicts on them ---- */
byte lgen, holder, floor = 1;
byte report[G + 1];
byte shards[L + 1];    /* durable ones, of PARTS */
bit  word[G + 1];      /* asked to drain: it stands beside the heartbeat */
bit  manifest[L + 1];
bit  committed[L + 1];
byte verdict[L + 1];   /* GOOD, BAD or NONE */
byte judged[L + 1];    /* epoch of the verdict */
byte harmed[L + 1];    /* 1 + epoch in which an outside hand deleted a shard */

#define PARTS 2
#define GOOD 1
#define BAD 2
#define DONE 1
#define DRAINED 2
#define FENCED 3
#define CRASHED 4

/* ---- EC2; launch number l makes machine l, since the token is made of it ---- */
byte ec2[L + 1];       /* ABSENT, UP or DOWN */
byte mgen[L + 1];      /* the generation in its tags */
bit  process[L + 1];   /* its processes live; longer than the machine, when it is a zombie */
bit  noticed[L + 1];   /* EC2 takes it back */
byte late;             /* a launch request that is still in the air, its sender has given up waiting */
byte lategen;

#define ABSENT 0
#define UP 1
#define DOWN 2

/* ---- messages under way; each may come twice, late, never ---- */
byte told_notice[L + 1];
byte told_down[L + 1];

/* ---- for the assertions ---- */
byte resumed_max;      /* highest generation that has chosen what to resume from */
byte crashes = CRASHES, faults = FAULTS, refusals = REFUSALS, harms = HARMS, zombies = ZOMBIES, cancels = CANCELS;
byte pauses = PAUSES, resumes = RESUMES, retries = RETRIES;
byte failures = FAILURES, notices = NOTICES, losses = LOSSES, lates = LATES;
bit  news = 1;         /* something has happened since a handler last came to rest */
byte launching[2];     /* the launch whose answer a handler has in its hands */

/* ---- the row's moves, each checked against the table of the code ---- */

#define LIVE(g) (inst[g] != NONE && !gone[g])

inline move(g, to) {
    assert(ATTEMPT_MOVE(att[g], to));              /* no move that the code's table does not have */
    c_code { observe_attempt(now.att[seen_g], seen_to); };
    att[g] = to
}

hidden byte seen_g, seen_to, next, i_, elder;
hidden byte any;
hidden byte alive[G + 1];

inline attempt_moves(g, to) {
    if
    :: att[g] != to ->
        seen_g = g; seen_to = to;
        move(g, to)
    :: else
    fi
}

#define OPEN (outcome == NONE && !paused)

/* as spotrelay/core/run.py::status_of; then the move of the run is checked, as in `settle` */
inline settle() {
    any = 0; elder = 0; i_ = 1;
    do
    :: i_ > G -> break
    :: else ->
        alive[i_] = LIVE(i_);
        any = any || LIVE(i_);
        elder = elder || (i_ < cur && LIVE(i_) && (att[i_] == A_RUNNING || att[i_] == A_DRAINING));
        i_++
    od;
    if
    :: outcome != NONE && (any || intent != NONE) -> next = R_STOPPING
    :: outcome != NONE && !any && intent == NONE -> next = outcome
    :: outcome == NONE && paused -> next = (any || intent != NONE -> R_PAUSING : R_PAUSED)
    :: OPEN && att[cur] == A_RUNNING -> next = R_RUNNING
    :: OPEN && (att[cur] == A_DRAINING || (elder && att[cur] != A_RUNNING)) -> next = R_HANDOVER
    :: OPEN && !elder && att[cur] == A_BOOTING -> next = R_STARTING
    :: OPEN && !elder && (att[cur] == A_NONE || att[cur] == A_RESERVED || att[cur] == A_ENDED) ->
        next = (intent != NONE -> R_LAUNCHING : R_WAITING)
    fi;
    assert(next == status || RUN_MOVE(status, next));
    c_code { observe_status(now.att, alive, now.outcome, now.paused, now.intent, now.status, next, G); };
    status = next;
    i_ = 0; any = 0; elder = 0; next = 0; seen_g = 0; seen_to = 0
}

#define FINAL (status == R_SUCCEEDED || status == R_FAILED || status == R_CANCELLED)

/* promise 5: whatever is not over is due at a known time */
#define OWNED (FINAL || due)

inline saved() {
    if
    :: outcome != NONE -> paused = 0
    :: else
    fi;
    settle();
    due = 1;
    fresh[0] = 0; fresh[1] = 0;
    assert(OWNED)
}

inline ended(g) {
    attempt_moves(g, A_ENDED)
}

inline lost() {
    epoch++
}

/* ---- EC2 ---- */

#if L > 2
#define MADE_FOR(g) (mgen[1] == g || mgen[2] == g || mgen[3] == g)
#else
#define MADE_FOR(g) (mgen[1] == g || mgen[2] == g)
#endif

inline ec2_creates(l, g) {
    assert(ec2[l] == ABSENT);                      /* promise 2: one machine for one launch */
#if LATES + REFUSALS == 0
    assert(!MADE_FOR(g));                          /* and one for an attempt, unless EC2 both refused and gave */
#endif
    ec2[l] = UP; mgen[l] = g; process[l] = 1; news = 1
}

inline ec2_ends(m) {
    if
    :: ec2[m] == UP ->
        ec2[m] = DOWN; news = 1;
        if
        :: true -> process[m] = 0
        :: zombies > 0 && process[m] -> zombies--   /* EC2 calls it gone, and it runs on */
        fi
    :: else
    fi
}

/* ---- the control plane ---- */

#define K_NONE 0       /* nothing in hand */
#define K_NOTICE 1     /* facts: about machine `arg` */
#define K_DOWN 2
#define K_GIVEN 3      /* launch `arg` made a machine */
#define K_REFUSED 4
#define K_UNCLEAR 5
#define K_ABANDONED 6
#define K_ASKED 7
#define K_UP 8         /* EC2 says that it runs, although it was asked to end it */
#define K_LEASE 9      /* facts: about generation `arg` */
#define K_REPORT 10
#define K_DRAINS 11    /* it was asked to drain */
#define D_FENCE 20     /* decisions, as in spotrelay/core/decisions.py */
#define D_VERIFY 21
#define D_RESERVE 22
#define D_SEND 23
#define D_RESOLVE 24
#define D_OBSERVE 25
#define D_TERMINATE 26
#define D_CONCLUDE 27
#define D_REST 28
#define D_DRAIN 29

#define OF(m) (inst[mgen[m]] == m)                 /* the row names this machine */
#define OVER(g) (att[g] == A_ENDED)
#if G > 2
#define ELDER_AT_WORK(g) ((g >= 2 && LIVE(1) && !OVER(1)) || (g == 3 && LIVE(2) && !OVER(2)))
#else
#define ELDER_AT_WORK(g) (g == 2 && LIVE(1) && !OVER(1))
#endif

#ifdef BUG_TOKEN
#define SAME_TOKEN 0
#else
#define SAME_TOKEN 1
#endif
#ifdef BUG_NEXT_RUNG
#define UNCLEAR_MEANS K_REFUSED
#else
#define UNCLEAR_MEANS K_UNCLEAR
#endif

/* whether a fact says anything new (spotrelay/core/record.py: told twice, it changes nothing) */
#define NEW_NOTICE(m) (OF(m) && !FINAL && (att[mgen[m]] == A_BOOTING || att[mgen[m]] == A_RUNNING))
#define NEW_DOWN(m) (OF(m) && !FINAL && !gone[mgen[m]])
#define NEW_LEASE(g) (lgen == g && !ran[g] && att[g] != A_NONE && att[g] != A_RESERVED && !FINAL)
#define NEW_REPORT(g) (report[g] != NONE && outcome == NONE && att[g] != A_NONE && att[g] != A_RESERVED && \
                       !OVER(g) && !(report[g] == DRAINED && drained[g]))

hidden byte best, ended_max;

/* the newest checkpoint that is verified and not condemned */
inline candidate(c) {
    c = 0; i_ = 1;
    do
    :: i_ > L -> break
    :: else ->
        if
        :: committed[i_] && verdict[i_] == GOOD && (c == 0 || mgen[i_] > mgen[c]) -> c = i_
        :: else
        fi;
        i_++
    od;
    i_ = 0
}

/* the newest one that waits for its verdict and could change the choice */
inline awaiting(c, than) {
    c = 0; i_ = 1;
    do
    :: i_ > L -> break
    :: else ->
        if
        :: committed[i_] && verdict[i_] == NONE && (than == 0 || mgen[i_] > mgen[than]) &&
           (c == 0 || mgen[i_] > mgen[c]) -> c = i_
        :: else
        fi;
        i_++
    od;
    i_ = 0
}

inline reserve(g, k, a) {
    if
    :: launches < L && g <= G -> k = D_RESERVE; a = g
    :: else ->                                     /* limits.max_launches */
        if
        :: att[cur] == A_DRAINING && LIVE(cur) && !drained[cur]   /* it may still finish in its last minutes */
        :: else -> k = D_CONCLUDE; a = R_FAILED
        fi
    fi
}

/* spotrelay/core/lifecycle.py::why_let_go; a drain that does not end in time is ended by a clock, which is not here */
#ifdef BUG_NO_LET_GO
#define LET_GO(g) (paused && att[g] == A_BOOTING)
#else
#define LET_GO(g) ((paused && att[g] == A_BOOTING) || (letgo[g] && att[g] == A_DRAINING && drained[g]))
#endif

/* the rules of spotrelay/core/decide.py, in their order; every pause has passed */
inline decide(k, a) {
    k = D_REST; a = 0;
    ended_max = 0; i_ = 1;
    do
    :: i_ > G -> break
    :: else ->
        if
        :: OVER(i_) -> ended_max = i_
        :: else
        fi;
        i_++
    od;
    if
    :: outcome != NONE && cur != NONE -> ended_max = cur
    :: else
    fi;
    i_ = 0;
    if
#ifndef BUG_NO_FENCE
    :: floor <= ended_max -> k = D_FENCE; a = ended_max + 1
#else
    :: false
#endif
    :: else -> if
    :: FINAL
    :: else ->
        /* _end_machines */
        i_ = 1;
        do
        :: i_ > G || k == D_TERMINATE -> break
        :: else ->
            if
            :: LIVE(i_) && !asked[i_] && !noticed[inst[i_]] && (outcome != NONE || OVER(i_) || LET_GO(i_)) ->
                k = D_TERMINATE; a = inst[i_]
            :: else
            fi;
            i_++
        od;
        i_ = 0;
        candidate(best); awaiting(elder, best);
        if
        :: k == D_TERMINATE
        :: else -> if
        /* _pending_launch */
        :: intent != NONE ->
            k = (OPEN -> D_SEND : D_RESOLVE); a = intent
        :: else -> if
        /* _drain */
        :: outcome == NONE && paused && att[cur] == A_RUNNING -> k = D_DRAIN; a = cur
        :: else -> if
        /* _replace_noticed */
        :: OPEN && cur != NONE && att[cur] == A_DRAINING -> reserve(cur + 1, k, a)
        :: else
        fi fi; if
        :: k != D_REST
        :: else -> if
        /* _verify */
        :: elder != 0 && outcome != R_FAILED && outcome != R_CANCELLED -> k = D_VERIFY; a = elder
#ifndef BUG_STALE_VERDICT
        :: elder == 0 && best != 0 && judged[best] < epoch && outcome == NONE -> k = D_VERIFY; a = best
#endif
        :: else -> if
        /* _need_machine */
        :: OPEN && cur == NONE -> reserve(1, k, a)
        :: OPEN && cur != NONE && att[cur] == A_RESERVED -> reserve(cur, k, a)
        :: OPEN && cur != NONE && OVER(cur) -> reserve(cur + 1, k, a)
        :: else
        fi fi fi fi fi;
        /* _limits come with the launches; a run whose outcome is known and that has nothing left is settled */
        i_ = 1;
        do
        :: i_ > G || k != D_REST -> break
        :: else ->                                 /* _observe: only when the answer is news */
            if
            :: LIVE(i_) && (ec2[inst[i_]] == DOWN || (asked[i_] && !noticed[inst[i_]])) ->
                k = D_OBSERVE; a = inst[i_]
            :: else
            fi;
            i_++
        od;
        i_ = 0
    fi fi;
    best = 0; elder = 0; ended_max = 0
}

/* what a fact does to the row: spotrelay/core/record.py */
inline record(kind, arg) {
    if
    :: kind == K_NOTICE -> attempt_moves(mgen[arg], A_DRAINING); lost()
    :: kind == K_DOWN ->
        gone[mgen[arg]] = 1;
        if
        :: !OVER(mgen[arg]) -> ended(mgen[arg]); lost()
        :: else
        fi
    :: kind == K_UP -> asked[mgen[arg]] = 0
    :: kind == K_DRAINS -> attempt_moves(arg, A_DRAINING); letgo[arg] = 1; lost()
    :: kind == K_ASKED -> asked[mgen[arg]] = 1
    :: kind == K_GIVEN ->
        intent = NONE;
        if
        :: att[mgen[arg]] == A_RESERVED ->
            attempt_moves(mgen[arg], A_BOOTING); inst[mgen[arg]] = arg
        :: else
        fi
    :: kind == K_REFUSED -> intent = NONE
    :: kind == K_ABANDONED ->
        intent = NONE;
        if
        :: att[cur] == A_RESERVED -> ended(cur)
        :: else
        fi
    :: kind == K_LEASE ->
        ran[arg] = 1;
        if
        :: att[arg] == A_BOOTING -> attempt_moves(arg, A_RUNNING)
        :: else
        fi
    :: kind == K_REPORT ->
        if
        :: report[arg] == DRAINED ->
            drained[arg] = 1;
            if
            :: att[arg] != A_DRAINING ->           /* no event told of the notice, or the word was its first news */
                attempt_moves(arg, A_DRAINING); letgo[arg] = word[arg]; lost()
            :: else
            fi
        :: report[arg] == DONE && floor <= arg && (ran[arg] || !ELDER_AT_WORK(arg)) ->
            ended(arg); outcome = R_SUCCEEDED
        :: else -> ended(arg)                      /* fenced, crashed, or its program ended in a drain */
        fi
    fi
}

#define ABOUT_LAUNCH(k) (k == K_GIVEN || k == K_REFUSED || k == K_UNCLEAR || k == K_ABANDONED)

/* drop a fact that says nothing new (any more) */
inline weigh(kind, arg) {
    if
    :: kind == K_NOTICE && !NEW_NOTICE(arg) -> kind = K_NONE; arg = 0
    :: kind == K_DOWN && !NEW_DOWN(arg) -> kind = K_NONE; arg = 0
    :: (kind == K_ASKED || kind == K_UP) && (!OF(arg) || FINAL) -> kind = K_NONE; arg = 0
    :: kind == K_DRAINS && (FINAL || att[arg] != A_RUNNING) -> kind = K_NONE; arg = 0
    :: ABOUT_LAUNCH(kind) && (intent != arg || kind == K_UNCLEAR) -> kind = K_NONE; arg = 0; launching[h] = 0
    :: else
    fi
}

/* what attempts say about themselves, read with the row */
inline absorbed(kind, arg) {
    i_ = 1;
    do
    :: i_ > G || kind != K_NONE -> break
    :: else ->
        if
        :: NEW_LEASE(i_) -> kind = K_LEASE; arg = i_
        :: else -> if
        :: NEW_REPORT(i_) -> kind = K_REPORT; arg = i_
        :: else
        fi fi;
        i_++
    od;
    i_ = 0
}

/* read the row and what attempts wrote, and find the next thing to write; D_REST when there is none */
inline load() {
    fresh[h] = 1; news = 0; plan = NONE; on = NONE;
    weigh(fact, about);
    if
    :: fact != K_NONE -> plan = fact; on = about
    :: else ->
        absorbed(plan, on);
        if
        :: plan == K_NONE -> decide(plan, on)
        :: else
        fi
    fi
}

inline lets_go() {
    fact = K_NONE; about = NONE; plan = NONE; on = NONE; mail = K_NONE; from = NONE;
    launching[h] = NONE; fresh[h] = 0
}

inline acknowledges() {
    if
    :: mail == K_NOTICE && told_notice[from] > 0 -> told_notice[from]--
    :: mail == K_DOWN && told_down[from] > 0 -> told_down[from]--
    :: else
    fi;
#ifdef BUG_TRUSTS_EVENTS
    due = 0                                        /* whatever happens, an event will tell of it */
#else
    if
    :: FINAL -> due = 0
    :: else
    fi
#endif
}

/* what is written before an act, and of its result after it: spotrelay/core/claim.py */
inline writes() {
    if
    :: plan < D_FENCE ->
        record(plan, on);
        if
        :: ABOUT_LAUNCH(plan) -> launching[h] = NONE
        :: else
        fi;
        if
        :: plan == fact -> fact = K_NONE; about = NONE
        :: else
        fi
    :: plan == D_CONCLUDE -> outcome = on
    :: plan == D_RESERVE ->
        if
        :: att[on] == A_NONE -> cur = on; att[on] = A_RESERVED
        :: else
        fi;
        launches++; intent = launches; forgen[launches] = on
    :: else                                        /* the claim: due again, should we die now */
    fi;
    saved();
    fresh[h] = 1
}

#define TOUCHES_THE_WORLD(plan) (plan >= D_FENCE && plan != D_CONCLUDE && plan != D_RESERVE)

/* one invocation after the other; the first function hears events, both sweep */
proctype handler(bit h) {
    byte fact, about;  /* brought by an event or by an act, not yet recorded */
    byte plan, on;     /* what is written next */
    byte mail, from;   /* the message that is acknowledged at the very end */

wait:
    atomic {
        if
        :: due && news                             /* the sweep; it finds only what is due */
#ifdef EVENTS
        :: h == 0 && told_notice[1] > 0 -> fact = K_NOTICE; about = 1; mail = K_NOTICE; from = 1
        :: h == 0 && told_down[1] > 0 -> fact = K_DOWN; about = 1; mail = K_DOWN; from = 1
#if L > 1
        :: h == 0 && told_notice[2] > 0 -> fact = K_NOTICE; about = 2; mail = K_NOTICE; from = 2
        :: h == 0 && told_down[2] > 0 -> fact = K_DOWN; about = 2; mail = K_DOWN; from = 2
#endif
#if L > 2
        :: h == 0 && told_notice[3] > 0 -> fact = K_NOTICE; about = 3; mail = K_NOTICE; from = 3
        :: h == 0 && told_down[3] > 0 -> fact = K_DOWN; about = 3; mail = K_DOWN; from = 3
#endif
#endif
        fi;
read:   skip;
        d_step {
            load();
            if
            :: plan == D_REST -> acknowledges(); lets_go()
            :: else
            fi
        };
        if
        :: plan == NONE -> goto wait
        :: else
        fi
    };
write:
    atomic {                                       /* the conditional write */
        if
        :: !fresh[h] -> goto read                  /* lost the race: read and decide again */
        :: else
        fi;
        d_step { writes() };
        if
        :: crashes > 0 -> crashes--; goto dies
        :: faults > 0 -> faults--; goto read       /* the reply was lost: read back, decide again */
        :: !TOUCHES_THE_WORLD(plan) -> goto read
        :: TOUCHES_THE_WORLD(plan)
        fi
    };
    atomic {                                       /* the act */
        if
        :: plan == D_FENCE -> d_step {
            if
            :: on > floor && SHUTS_OUT(on) -> holder = NONE; floor = on
            :: on > floor && !SHUTS_OUT(on) -> floor = on
            :: else
            fi;
            news = 1 }
        :: plan == D_VERIFY -> d_step {
            judged[on] = epoch;
            verdict[on] = (verdict[on] != BAD && shards[on] == PARTS && manifest[on] && !harmed[on] -> GOOD : BAD);
            news = 1 }
        :: plan == D_DRAIN -> word[on] = 1; fact = K_DRAINS; about = on
        :: plan == D_TERMINATE ->
            fact = K_ASKED; about = on;
            if
            :: true -> ec2_ends(on)
            :: faults > 0 -> faults--              /* it was refused, or never arrived */
            fi
        :: plan == D_OBSERVE ->
            fact = (ec2[on] == DOWN -> K_DOWN : K_UP); about = on
        :: plan == D_RESOLVE ->
            fact = (ec2[on] != ABSENT -> K_GIVEN : K_ABANDONED); about = on; launching[h] = on
        :: plan == D_SEND ->
            launching[h] = on; about = on;
            if
            :: ec2[on] != ABSENT && SAME_TOKEN -> fact = K_GIVEN   /* the token: EC2 answers what it answered */
            :: ec2[on] == ABSENT || !SAME_TOKEN -> fact = K_GIVEN; ec2_creates(on, forgen[on])
            :: faults > 0 && (ec2[on] == ABSENT || !SAME_TOKEN) ->
                faults--; fact = UNCLEAR_MEANS; ec2_creates(on, forgen[on])   /* the reply is lost */
            :: ec2[on] == ABSENT && refusals > 0 -> refusals--; fact = K_REFUSED
            :: faults > 0 -> faults--; fact = UNCLEAR_MEANS            /* it never arrived */
            :: lates > 0 && late == NONE && ec2[on] == ABSENT ->       /* it arrives when nobody waits any more */
                lates--; late = on; lategen = forgen[on]; fact = UNCLEAR_MEANS
            fi
        fi;
        if
        :: crashes > 0 -> crashes--; goto dies
        :: goto read
        fi
    };
dies:
    atomic { lets_go(); news = 1; goto wait }
}

/* ---- a machine: it boots, takes the lease, chooses what to resume from, trains, saves, drains ---- */

#define ALIVE(m) (process[m])
#define CHOSEN_BEFORE(i, j) (committed[j] && verdict[j] == GOOD && mgen[j] > mgen[i])
#define PASSED(i, j) (committed[j] && verdict[j] == GOOD && mgen[j] >= mgen[i])
#define IS_PENDING(i) (committed[i] && verdict[i] == NONE)
#define IS_STALE(i) (committed[i] && verdict[i] == GOOD && judged[i] < epoch)
#if L > 2
#define BEST(i) (!CHOSEN_BEFORE(i, 1) && !CHOSEN_BEFORE(i, 2) && !CHOSEN_BEFORE(i, 3))
#define UNPASSED(i) (!PASSED(i, 1) && !PASSED(i, 2) && !PASSED(i, 3))
#define SOME(is, which) ((is(1) && which(1)) || (is(2) && which(2)) || (is(3) && which(3)))
#else
#define BEST(i) (!CHOSEN_BEFORE(i, 1) && !CHOSEN_BEFORE(i, 2))
#define UNPASSED(i) (!PASSED(i, 1) && !PASSED(i, 2))
#define SOME(is, which) ((is(1) && which(1)) || (is(2) && which(2)))
#endif

inline says(g, what) {
    if
    :: report[g] == NONE -> report[g] = what; news = 1
    :: else
    fi
}

inline newest_committed(c) {
    c = 0; i_ = 1;
    do
    :: i_ > L -> break
    :: else ->
        if
        :: committed[i_] && (c == 0 || mgen[i_] > mgen[c]) -> c = i_
        :: else
        fi;
        i_++
    od;
    i_ = 0
}

inline chooses(g) {
    candidate(best);
#ifdef BUG_UNVERIFIED
    newest_committed(best);
#endif
    if
    :: best != 0 ->
        /* promise 3: committed, compared with S3 by the control plane, and that after the last loss */
        assert(committed[best] && verdict[best] == GOOD);
        assert(shards[best] == PARTS && manifest[best]);
        assert(harmed[best] == 0 || harmed[best] - 1 >= epoch)
    :: else
    fi;
    if
    :: g > resumed_max -> resumed_max = g
    :: else
    fi;
    best = 0
}

proctype machine(byte m) {
    byte g;

    atomic { ec2[m] == UP && ALIVE(m) -> g = mgen[m] };
    atomic {
        if
        :: ALIVE(m) && FENCED_OUT(g, m) -> says(g, FENCED); goto off
        :: ALIVE(m) && MAY_TAKE(g, m) -> lgen = g; holder = m; news = 1
        fi
    };
    atomic {
#ifdef BUG_UNVERIFIED
        ALIVE(m) ->
#else
#ifdef BUG_STALE_VERDICT
        ALIVE(m) && !SOME(IS_PENDING, UNPASSED) ->
#else
        ALIVE(m) && !SOME(IS_PENDING, UNPASSED) && !SOME(IS_STALE, BEST) ->
#endif
#endif
        d_step { chooses(g) }
    };
training:
    if
#ifdef SAVES
    :: atomic { ALIVE(m) && shards[m] < PARTS -> shards[m]++; goto training }
    :: atomic { ALIVE(m) && shards[m] == PARTS && !manifest[m] -> manifest[m] = 1; goto training }
#ifdef BUG_COMMIT_FIRST
    :: atomic { ALIVE(m) && shards[m] > 0 && !committed[m] ->
#else
    :: atomic { ALIVE(m) && manifest[m] && !committed[m] ->
#endif
            if
#ifdef BUG_NO_FENCE_AT_COMMIT
            :: true ->
#else
            :: MAY_COMMIT(g, m) ->
#endif
                assert(g >= resumed_max);          /* promise 1: nobody commits behind a successor's back */
                assert(shards[m] == PARTS && manifest[m]);
                committed[m] = 1; news = 1;
                goto training
#ifndef BUG_NO_FENCE_AT_COMMIT
            :: else -> says(g, FENCED); goto off
#endif
            fi
        }
#endif
    :: atomic { ALIVE(m) && noticed[m] ->
            if
            :: MAY_COMMIT(g, m) -> holder = NONE; news = 1
            :: else
            fi;
            says(g, DRAINED)
        }
    :: atomic { ALIVE(m) && word[g] ->
            if
            :: MAY_COMMIT(g, m) -> holder = NONE; news = 1
            :: else
            fi;
            says(g, DRAINED)
        }
    :: atomic { ALIVE(m) && !noticed[m] -> says(g, DONE) }
    :: atomic { ALIVE(m) && failures > 0 -> failures--; says(g, CRASHED) }
    fi;
off:
    skip
}

/* ---- the sweep's other half: machines with our tag that no run answers for ---- */

#define IN_HAND(m) (launching[0] == m || launching[1] == m)
#define ORPHAN(m) (ec2[m] == UP && intent != m && !IN_HAND(m) && !OF(m))

#ifndef BUG_NO_ORPHANS
active proctype orphans() {
    do
    :: atomic { ORPHAN(1) -> ec2_ends(1) }
#if L > 1
    :: atomic { ORPHAN(2) -> ec2_ends(2) }
#endif
#if L > 2
    :: atomic { ORPHAN(3) -> ec2_ends(3) }
#endif
    od
}
#endif

/* ---- the world ---- */

inline tells(box) {                             /* once, twice, never */
#ifdef EVENTS
    if
    :: box = 0
    :: box = 1
    :: box = 2
    fi
#else
    skip
#endif
}

inline arrives() {
    if
    :: ec2[late] == ABSENT -> ec2_creates(late, lategen)
    :: else
    fi;
    late = 0; lategen = 0
}

inline reclaim(m) {
    ec2_ends(m); tells(told_down[m])
}

inline reopens() {                              /* spotrelay/core/lifecycle.py::retry */
    d_step {
        if
        :: cur != NONE && !OVER(cur) -> ended(cur)
        :: else
        fi;
        outcome = NONE; lost(); saved()
    };
    news = 1
}

#define EC2_MUST(m) \
    :: atomic { noticed[m] && ec2[m] == UP -> reclaim(m) }

#define EC2_MAY(m) \
    :: atomic { notices > 0 && ec2[m] == UP && !noticed[m] -> \
            notices--; noticed[m] = 1; news = 1; tells(told_notice[m]) } \
    :: atomic { losses > 0 && ec2[m] == UP -> losses--; reclaim(m) } \
    :: atomic { harms > 0 && committed[m] && !harmed[m] -> harms--; harmed[m] = 1 + epoch }

active proctype world() {
    do
    EC2_MAY(1) EC2_MUST(1)
#if L > 1
    EC2_MAY(2) EC2_MUST(2)
#endif
#if L > 2
    EC2_MAY(3) EC2_MUST(3)
#endif
    :: atomic { late != NONE -> arrives() }
    :: atomic { cancels > 0 && outcome == NONE ->  /* a person's conditional write */
            cancels--; d_step { outcome = R_CANCELLED; saved() }; news = 1 }
    :: atomic { pauses > 0 && OPEN -> pauses--; d_step { paused = 1; saved() }; news = 1 }
    :: atomic { resumes > 0 && paused -> resumes--; d_step { paused = 0; saved() }; news = 1 }
    :: atomic { retries > 0 && (status == R_FAILED || status == R_CANCELLED) -> retries--; reopens() }
    :: break
    od;
    do                                             /* nothing new happens any more; what was begun comes to its end */
    EC2_MUST(1)
#if L > 1
    EC2_MUST(2)
#endif
#if L > 2
    EC2_MUST(3)
#endif
    :: atomic { late != NONE -> arrives() }
    od
}

#if L > 2
#define NO_MACHINE_IS_UP (ec2[1] != UP && ec2[2] != UP && ec2[3] != UP)
#else
#define NO_MACHINE_IS_UP (ec2[1] != UP && ec2[2] != UP)
#endif

/* promises 2 and 5, where nothing can move any more: the run is over or rests, and no machine is left */
active proctype ends_well() {
    timeout;
    assert(FINAL || status == R_PAUSED);
    assert(NO_MACHINE_IS_UP)
}

init {
    atomic {
        run handler(0);
        run handler(1);
        run machine(1);
#if L > 1
        run machine(2);
#endif
#if L > 2
        run machine(3)
#endif
    }
}
