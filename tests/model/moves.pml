/* Made from spotrelay/core/run.py by `make docs`: do not edit. */

#define A_NONE 0
#define A_RESERVED 1
#define A_BOOTING 2
#define A_RUNNING 3
#define A_DRAINING 4
#define A_ENDED 5

#define ATTEMPT_MOVE(a, b) ( \
    (a == A_RESERVED && b == A_BOOTING) || \
    (a == A_RESERVED && b == A_ENDED) || \
    (a == A_BOOTING && b == A_RUNNING) || \
    (a == A_BOOTING && b == A_DRAINING) || \
    (a == A_BOOTING && b == A_ENDED) || \
    (a == A_RUNNING && b == A_DRAINING) || \
    (a == A_RUNNING && b == A_ENDED) || \
    (a == A_DRAINING && b == A_ENDED))

#define R_WAITING 1
#define R_LAUNCHING 2
#define R_STARTING 3
#define R_RUNNING 4
#define R_PAUSING 5
#define R_PAUSED 6
#define R_HANDOVER 7
#define R_STOPPING 8
#define R_SUCCEEDED 9
#define R_FAILED 10
#define R_CANCELLED 11

#define RUN_MOVE(a, b) ( \
    (a == R_WAITING && b == R_LAUNCHING) || \
    (a == R_WAITING && b == R_STOPPING) || \
    (a == R_WAITING && b == R_CANCELLED) || \
    (a == R_WAITING && b == R_FAILED) || \
    (a == R_WAITING && b == R_SUCCEEDED) || \
    (a == R_LAUNCHING && b == R_WAITING) || \
    (a == R_LAUNCHING && b == R_STARTING) || \
    (a == R_LAUNCHING && b == R_STOPPING) || \
    (a == R_LAUNCHING && b == R_FAILED) || \
    (a == R_STARTING && b == R_RUNNING) || \
    (a == R_STARTING && b == R_WAITING) || \
    (a == R_STARTING && b == R_HANDOVER) || \
    (a == R_STARTING && b == R_STOPPING) || \
    (a == R_STARTING && b == R_FAILED) || \
    (a == R_STARTING && b == R_CANCELLED) || \
    (a == R_STARTING && b == R_SUCCEEDED) || \
    (a == R_RUNNING && b == R_HANDOVER) || \
    (a == R_RUNNING && b == R_WAITING) || \
    (a == R_RUNNING && b == R_STOPPING) || \
    (a == R_RUNNING && b == R_SUCCEEDED) || \
    (a == R_RUNNING && b == R_FAILED) || \
    (a == R_RUNNING && b == R_CANCELLED) || \
    (a == R_HANDOVER && b == R_RUNNING) || \
    (a == R_HANDOVER && b == R_STARTING) || \
    (a == R_HANDOVER && b == R_LAUNCHING) || \
    (a == R_HANDOVER && b == R_WAITING) || \
    (a == R_HANDOVER && b == R_STOPPING) || \
    (a == R_HANDOVER && b == R_SUCCEEDED) || \
    (a == R_HANDOVER && b == R_FAILED) || \
    (a == R_HANDOVER && b == R_CANCELLED) || \
    (a == R_STOPPING && b == R_SUCCEEDED) || \
    (a == R_STOPPING && b == R_FAILED) || \
    (a == R_STOPPING && b == R_CANCELLED) || \
    (a == R_WAITING && b == R_PAUSED) || \
    (a == R_WAITING && b == R_PAUSING) || \
    (a == R_LAUNCHING && b == R_PAUSING) || \
    (a == R_STARTING && b == R_PAUSING) || \
    (a == R_RUNNING && b == R_PAUSING) || \
    (a == R_HANDOVER && b == R_PAUSING) || \
    (a == R_PAUSING && b == R_PAUSED) || \
    (a == R_PAUSING && b == R_STOPPING) || \
    (a == R_PAUSING && b == R_WAITING) || \
    (a == R_PAUSING && b == R_LAUNCHING) || \
    (a == R_PAUSING && b == R_STARTING) || \
    (a == R_PAUSING && b == R_RUNNING) || \
    (a == R_PAUSING && b == R_HANDOVER) || \
    (a == R_PAUSED && b == R_WAITING) || \
    (a == R_PAUSED && b == R_CANCELLED) || \
    (a == R_PAUSED && b == R_FAILED) || \
    (a == R_FAILED && b == R_WAITING) || \
    (a == R_CANCELLED && b == R_WAITING))
