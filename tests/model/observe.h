/* Tells once of each move and each status that the exhaustive search meets: what the model really does. */

#include <stdio.h>

static unsigned char met_attempt[8][8], met_status[1 << 20];

static void observe_attempt(int from, int to) {
    if (!met_attempt[from][to]++) printf("attempt-move %d %d\n", from, to);
}

static void observe_status(unsigned char *att, unsigned char *live, int outcome, int paused, int intent, int before,
                           int after, int generations) {
    int g, key = before << 16 | (paused != 0) << 15 | (outcome ? outcome - 8 : 0) << 13 | (intent != 0) << 12;
    for (g = 1; g <= generations; g++) key |= (att[g] << 1 | live[g]) << 4 * (g - 1);
    if (met_status[key]++) return;
    printf("status %d %d %d %d %d", before, after, outcome, paused != 0, intent != 0);
    for (g = 1; g <= generations; g++) printf(" %d:%d", att[g], live[g]);
    printf("\n");
}
