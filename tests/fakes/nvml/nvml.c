/* The part of NVML's ABI that is used here. Each call reads the file that FAKE_NVML names, so a test may change it.
 *
 * A line is "NAME CODE PERCENT DELAY_MS": what a card's reading returns and takes. CODE is an nvmlReturn_t. The card
 * "driver" stands for the library itself: its CODE is what nvmlInit returns. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, NOT_FOUND = 6, MAX_CARDS = 16 };

typedef struct card {
    char name[64];
} card;

typedef struct utilization {
    unsigned int gpu, memory;
} utilization;

static card cards[MAX_CARDS];
static int initialised;

static int lookup(const char *name, unsigned int *percent, unsigned int *delay_ms) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char found[64];
    int code, result = NOT_FOUND;
    if (!file) return NOT_FOUND;
    while (fscanf(file, "%63s %d %u %u", found, &code, percent, delay_ms) == 4)
        if (!strcmp(found, name)) {
            result = code;
            break;
        }
    fclose(file);
    return result;
}

int nvmlInitWithFlags(unsigned int flags) {
    unsigned int percent, delay_ms;
    int code = lookup("driver", &percent, &delay_ms);
    (void)flags;
    if (code != SUCCESS && code != NOT_FOUND) return code;
    initialised = 1;
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, card **handle) {
    unsigned int percent, delay_ms;
    if (!initialised) return UNINITIALIZED;
    if (lookup(uuid, &percent, &delay_ms) == NOT_FOUND) return NOT_FOUND;
    for (int i = 0; i < MAX_CARDS; i++)
        if (!cards[i].name[0] || !strcmp(cards[i].name, uuid)) {
            strncpy(cards[i].name, uuid, sizeof cards[i].name - 1);
            *handle = &cards[i];
            return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetUtilizationRates(card *handle, utilization *rates) {
    unsigned int percent = 0, delay_ms = 0;
    int code = lookup(handle->name, &percent, &delay_ms);
    usleep(1000 * delay_ms);
    rates->gpu = percent;
    rates->memory = 0;
    return code;
}

const char *nvmlErrorString(int code) {
    (void)code;
    return "made up";
}
