/* The lease's rules, as spotrelay/core/lease.py has them.
 * tests/model/test_model.py evaluates each of these and calls the code, for every small lease: they must agree. */

#define FENCED_OUT(g, m)  (g < floor || g < lgen || (g == lgen && holder != m))
#define MAY_COMMIT(g, m)  (holder == m && lgen == g && g >= floor)
#define HELD              (holder != 0 && lgen >= floor)
#define MAY_TAKE(g, m)    (!FENCED_OUT(g, m) && (MAY_COMMIT(g, m) || !HELD))
#define SHUTS_OUT(f)      (lgen < f)
