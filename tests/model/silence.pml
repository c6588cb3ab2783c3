/* Silence is not death: one machine, one watcher, outages as long as anyone likes. docs/protocol.md explains.
 *
 * Time goes by in ticks, one look of a healthy run apart (`Timings.watch`). LOOKS, SILENCE, HOPELESS and GAP come
 * from spotrelay/core/clockwork.py and spotrelay/core/record.py, in ticks. -DBUG_x removes a rule.
 */

#define CAP 20                                     /* beyond every bound: longer makes no difference */

bit table = 1, api = 1, functions = 1;             /* whether DynamoDB and EC2 answer, and Lambda runs our code */
byte outages = OUTAGES;
bit healthy = 1, up = 1;                           /* the process trains; the machine runs */

bit fresh = 1;                                     /* the heartbeat's counter moved since the last look */
bit beaten, looked, disturbed;                     /* in this tick: it beat; a look was made; something was out */

/* the row */
byte since, ago, looks;                            /* spotrelay/core/run.py::Silence, in ticks */
bit known = 0;                                     /* a first look was made */
bit observed;                                      /* EC2 said "running" since the silence began */
bit ended, replaced;

#define SILENT(bound) (looks >= LOOKS && since >= bound)
#define MORE(x) (x < CAP -> x + 1 : x)

inline look() {                                    /* spotrelay/core/record.py::_absorb_silence */
    if
    :: !known || fresh ->
        known = 1; fresh = 0; since = 0; ago = 0; looks = 1; observed = 0
#ifndef BUG_NO_GAP
    :: known && !fresh && ago > GAP -> since = 0; ago = 0; looks = 1; observed = 0
    :: known && !fresh && ago > 0 && ago <= GAP ->
#else
    :: known && !fresh && ago > 0 ->
#endif
        ago = 0; looks = (looks < LOOKS -> looks + 1 : looks)
    :: known && !fresh && ago == 0                 /* a burst of events is one look */
    fi
}

inline terminate() {
    assert(!healthy);                              /* promise 6: a healthy machine is never ended */
    up = 0
}

inline launch() {
    assert(!up);                                   /* never two: only when EC2 says that the machine runs no more */
    replaced = 1
}

inline judge() {                                   /* spotrelay/core/decide.py: _observe, then _end_machines */
    if
    :: SILENT(SILENCE) && api && !up -> ended = 1; launch()
    :: SILENT(SILENCE) && api && up && !(SILENT(HOPELESS) && observed) -> observed = 1
#ifdef BUG_NEVER_HOPELESS
    :: SILENT(HOPELESS) && api && up && observed
#else
    :: SILENT(HOPELESS) && api && up && observed -> terminate()
#endif
#ifdef BUG_UNKNOWN_IS_DEAD
    :: SILENT(SILENCE) && !api -> ended = 1; launch()
#else
    :: SILENT(SILENCE) && !api                     /* unknown never means relaunch */
#endif
    :: !SILENT(SILENCE)
    fi
}

active proctype sweep() {
    do
    :: atomic { table && functions && !ended -> d_step { look(); judge(); looked = 1 } }
    od
}

active proctype program() {
    do
    :: atomic { healthy && table -> fresh = 1; beaten = 1 }
    od
}

/* A healthy program that reaches the table beats several times between two looks; any other may not beat at all.
 * The sweep comes round in each tick, unless something is out. */
active proctype clock() {
    do
    :: atomic { (!healthy || !table || disturbed || beaten) && (looked || ended || !table || !functions || disturbed) ->
            since = MORE(since); ago = MORE(ago); beaten = 0; looked = 0; disturbed = !table || !functions }
    od
}

active proctype world() {
    do
    :: atomic { outages > 0 && table -> outages--; table = 0; disturbed = 1 }
    :: atomic { !table -> table = 1 }
    :: atomic { outages > 0 && api -> outages--; api = 0 }
    :: atomic { !api -> api = 1 }
    :: atomic { outages > 0 && functions -> outages--; functions = 0; disturbed = 1 }
    :: atomic { !functions -> functions = 1 }
    :: atomic { healthy -> healthy = 0 }           /* it hangs */
    :: atomic { up -> healthy = 0; up = 0 }        /* the machine dies, and no event tells */
    :: table && api && functions -> break          /* nothing new happens any more */
    od
}

/* always an owner: who hangs or dies is replaced, however long the outages before */
ltl an_owner { [] ((!healthy && [] (table && api && functions)) -> <> replaced) }
