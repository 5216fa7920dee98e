/* A PKCS#11 module that forwards to another one and does to it what networks and vendors do.
 *
 * Tests steer it through a file that both sides map (P11SHIM_CONTROL); `tests/faults/shim.py` has the same
 * layout. Every argument of Cryptoki is an unsigned long or a pointer, so all calls are forwarded as words.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long W;
typedef W (*Fn)();

#define FUNCTIONS 68
#define OK 0
#define DEVICE_ERROR 0x30
#define DEVICE_REMOVED 0x32
#define MECHANISM_PARAM_INVALID 0x71
#define SESSION_HANDLE_INVALID 0xB3
#define TOKEN_NOT_PRESENT 0xE0
#define USER_ALREADY_LOGGED_IN 0x100
#define USER_NOT_LOGGED_IN 0x101
#define AES_GCM 0x1087

struct rule { uint64_t skip, times, rv, delay_us, hang, calls; };
struct control {
    struct rule rules[FUNCTIONS + 1]; /* the last one is for every function */
    uint64_t removed;                 /* the token is out of its slot */
    uint64_t dead;                    /* nothing works until the module is initialised again */
    uint64_t logged_out;
    uint64_t lose_sessions;           /* set by the test, cleared here */
    uint64_t lost_below;              /* handles up to here are invalid */
    uint64_t iv_mode;                 /* 0 host, 1 written in place, 2 appended */
    uint64_t open_sessions, active, most_active, initializations, hanging, highest;
    uint64_t session_limit;           /* 0: none */
    uint64_t objects;                 /* made and not destroyed; those that went with their session still count */
};

static struct control *control;
static struct { unsigned char version[8]; Fn function[FUNCTIONS]; } ours, *theirs;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { W session; unsigned char iv[16]; } ivs[4096];

#define ADD(field, n) __atomic_add_fetch(&control->field, (n), __ATOMIC_SEQ_CST)
#define GET(field) __atomic_load_n(&control->field, __ATOMIC_SEQ_CST)
#define SET(field, n) __atomic_store_n(&control->field, (n), __ATOMIC_SEQ_CST)

static void pause_us(uint64_t us) {
    struct timespec t = {us / 1000000, (us % 1000000) * 1000};
    nanosleep(&t, NULL);
}

/* What a rule says to the call that is being made. */
static W apply(struct rule *rule) {
    W rv = OK;
    if (__atomic_load_n(&rule->delay_us, __ATOMIC_SEQ_CST)) pause_us(rule->delay_us);
    if (__atomic_load_n(&rule->hang, __ATOMIC_SEQ_CST)) {
        ADD(hanging, 1);
        while (__atomic_load_n(&rule->hang, __ATOMIC_SEQ_CST)) pause_us(2000);
        ADD(hanging, -1);
    }
    if (__atomic_load_n(&rule->times, __ATOMIC_SEQ_CST)) {
        pthread_mutex_lock(&lock);
        if (rule->skip) rule->skip--;
        else if (rule->times) { rule->times--; rv = rule->rv; }
        pthread_mutex_unlock(&lock);
    }
    return rv;
}

static W enter(int place) {
    uint64_t active = ADD(active, 1), most = GET(most_active);
    while (active > most && !__atomic_compare_exchange_n(&control->most_active, &most, active, 0,
                                                         __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
    ADD(rules[place].calls, 1);
    ADD(rules[FUNCTIONS].calls, 1);
    W rv = apply(&control->rules[place]);
    return rv ? rv : apply(&control->rules[FUNCTIONS]);
}

/* Whether a session can be used, and logged in. */
static W usable(W session, int needs_login) {
    if (GET(removed)) return DEVICE_REMOVED;
    if (GET(dead)) return DEVICE_ERROR;
    if (GET(lose_sessions)) { SET(lost_below, GET(highest)); SET(lose_sessions, 0); }
    if (session <= GET(lost_below)) return SESSION_HANDLE_INVALID;
    if (needs_login && GET(logged_out)) return USER_NOT_LOGGED_IN;
    return OK;
}

#define LEAVE(rv) do { W out_ = (rv); ADD(active, -1); return out_; } while (0)
#define REAL(place) (theirs->function[place])

#define FORWARD_COUNTING(name, place, login, types, values, change)                   \
    static W name types {                                                             \
        W rv = enter(place);                                                          \
        if (!rv) rv = usable(s, login);                                               \
        if (!rv) rv = REAL(place) values;                                             \
        if (!rv && change) ADD(objects, change);                                      \
        LEAVE(rv);                                                                    \
    }
#define FORWARD(name, place, login, types, values) FORWARD_COUNTING(name, place, login, types, values, 0)

FORWARD_COUNTING(create_object, 20, 1, (W s, W a, W b, W c), (s, a, b, c), 1)
FORWARD_COUNTING(copy_object, 21, 1, (W s, W a, W b, W c, W d), (s, a, b, c, d), 1)
FORWARD_COUNTING(destroy_object, 22, 1, (W s, W a), (s, a), -1)
FORWARD(get_attribute, 24, 1, (W s, W a, W b, W c), (s, a, b, c))
FORWARD(set_attribute, 25, 1, (W s, W a, W b, W c), (s, a, b, c))
FORWARD(find_init, 26, 0, (W s, W a, W b), (s, a, b))
FORWARD(find_final, 28, 0, (W s), (s))
FORWARD(decrypt, 34, 1, (W s, W a, W b, W c, W d), (s, a, b, c, d))
FORWARD(sign_init, 42, 1, (W s, W a, W b), (s, a, b))
FORWARD(sign, 43, 1, (W s, W a, W b, W c, W d), (s, a, b, c, d))
FORWARD_COUNTING(generate_key, 58, 1, (W s, W a, W b, W c, W d), (s, a, b, c, d), 1)
FORWARD_COUNTING(generate_pair, 59, 1, (W s, W a, W b, W c, W d, W e, W f, W g), (s, a, b, c, d, e, f, g), 2)
FORWARD(wrap_key, 60, 1, (W s, W a, W b, W c, W d, W e), (s, a, b, c, d, e))
FORWARD_COUNTING(unwrap_key, 61, 1, (W s, W a, W b, W c, W d, W e, W f, W g), (s, a, b, c, d, e, f, g), 1)
FORWARD(random_bytes, 64, 0, (W s, W a, W b), (s, a, b))

/* Logged out, a search finds nothing private, and says so by finding nothing at all. */
static W find(W s, W objects, W most, W count) {
    W rv = enter(27);
    if (!rv) rv = usable(s, 0);
    if (!rv) rv = REAL(27)(s, objects, most, count);
    if (!rv && GET(logged_out)) *(W *)count = 0;
    LEAVE(rv);
}

static W initialize(W arguments) {
    W rv = enter(0);
    if (!rv && GET(removed)) rv = OK; /* the module works, the token is out */
    if (!rv) rv = REAL(0)(arguments);
    if (!rv) {
        ADD(initializations, 1);
        SET(dead, 0); SET(logged_out, 0); SET(lost_below, 0); SET(highest, 0); SET(open_sessions, 0); SET(objects, 0);
    }
    LEAVE(rv);
}

static W finalize(W reserved) {
    W rv = enter(1);
    if (!rv) rv = REAL(1)(reserved);
    if (!rv) { SET(open_sessions, 0); SET(objects, 0); }
    LEAVE(rv);
}

static W slot_list(W present, W slots, W count) {
    W rv = enter(4);
    if (!rv) rv = REAL(4)(present, slots, count);
    LEAVE(rv);
}

static W token_info(W slot, W info) {
    W rv = enter(6);
    if (!rv && GET(removed)) rv = TOKEN_NOT_PRESENT;
    if (!rv) rv = REAL(6)(slot, info);
    LEAVE(rv);
}

static W open_session(W slot, W flags, W application, W notify, W handle) {
    W rv = enter(12);
    if (!rv && GET(removed)) rv = TOKEN_NOT_PRESENT;
    if (!rv && GET(dead)) rv = DEVICE_ERROR;
    if (!rv && GET(session_limit) && GET(open_sessions) >= GET(session_limit)) rv = 0xB1;
    if (!rv) rv = REAL(12)(slot, flags, application, notify, handle);
    if (!rv) {
        ADD(open_sessions, 1);
        if (*(W *)handle > GET(highest)) SET(highest, *(W *)handle);
    }
    LEAVE(rv);
}

static W close_session(W s) {
    W rv = enter(13);
    W lost = usable(s, 0);
    W real = REAL(13)(s);
    if (!real) ADD(open_sessions, -1);
    LEAVE(rv ? rv : lost ? lost : real);
}

static W session_info(W s, W info) {
    W rv = enter(15);
    if (!rv) rv = usable(s, 0);
    if (!rv) rv = REAL(15)(s, info);
    if (!rv && GET(logged_out)) ((W *)info)[1] = 2; /* RW public */
    LEAVE(rv);
}

static W login(W s, W user, W pin, W size) {
    W rv = enter(18);
    if (!rv) rv = usable(s, 0);
    if (!rv) rv = REAL(18)(s, user, pin, size);
    if (rv == USER_ALREADY_LOGGED_IN && GET(logged_out)) rv = OK;
    if (!rv) SET(logged_out, 0);
    LEAVE(rv);
}

/* -- IVs that the HSM makes ----------------------------------------------------------------------- */

static W encrypt_init(W s, W mechanism, W key) {
    W rv = enter(29);
    if (!rv) rv = usable(s, 1);
    W *m = (W *)mechanism;
    if (!rv && GET(iv_mode) && m && m[0] == AES_GCM) {
        W params[6];
        memcpy(params, (void *)m[1], sizeof params);
        unsigned char *given = (unsigned char *)params[0], *kept = ivs[s % 4096].iv;
        static const unsigned char zeros[12];
        if (GET(iv_mode) == 1) {
            if (params[1] != 12 || memcmp(given, zeros, 12)) LEAVE(MECHANISM_PARAM_INVALID);
            if (getrandom(given, 12, 0) != 12) LEAVE(DEVICE_ERROR);
        } else {
            W changed[3] = {m[0], (W)params, m[2]};
            if (memcmp(given, zeros, 12)) LEAVE(MECHANISM_PARAM_INVALID);
            if (getrandom(kept, 16, 0) != 16) LEAVE(DEVICE_ERROR);
            params[0] = (W)kept; params[1] = 16; params[2] = 128;
            LEAVE(REAL(29)(s, changed, key));
        }
    }
    if (!rv) rv = REAL(29)(s, mechanism, key);
    LEAVE(rv);
}

static W encrypt(W s, W data, W size, W out, W length) {
    W rv = enter(30);
    if (!rv) rv = usable(s, 1);
    if (!rv) rv = REAL(30)(s, data, size, out, length);
    if (!rv && GET(iv_mode) == 2 && out) {
        memcpy((unsigned char *)out + *(W *)length, ivs[s % 4096].iv, 16);
        *(W *)length += 16;
    }
    LEAVE(rv);
}

static W decrypt_init(W s, W mechanism, W key) {
    W rv = enter(33);
    if (!rv) rv = usable(s, 1);
    W *m = (W *)mechanism;
    if (!rv && GET(iv_mode) == 2 && m && m[0] == AES_GCM && ((W *)m[1])[1] != 16) rv = MECHANISM_PARAM_INVALID;
    if (!rv) rv = REAL(33)(s, mechanism, key);
    LEAVE(rv);
}

static W function_list(W out);

static void load(void) {
    const char *path = getenv("P11SHIM_CONTROL");
    int file = path ? open(path, O_RDWR) : -1;
    void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE,
                     file < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED, file, 0);
    if (file >= 0) close(file);
    void *module = dlopen(REAL_MODULE, RTLD_NOW | RTLD_LOCAL);
    Fn get = module ? (Fn)dlsym(module, "C_GetFunctionList") : NULL;
    if (map == MAP_FAILED || !get || get(&theirs)) abort();
    control = map;
    memcpy(&ours, theirs, sizeof ours);
    static const struct { int place; Fn function; } replaced[] = {
        {0, (Fn)initialize}, {1, (Fn)finalize}, {3, (Fn)function_list}, {4, (Fn)slot_list},
        {6, (Fn)token_info}, {12, (Fn)open_session}, {13, (Fn)close_session}, {15, (Fn)session_info},
        {18, (Fn)login}, {20, (Fn)create_object}, {21, (Fn)copy_object}, {22, (Fn)destroy_object},
        {24, (Fn)get_attribute}, {25, (Fn)set_attribute}, {26, (Fn)find_init}, {27, (Fn)find},
        {28, (Fn)find_final}, {29, (Fn)encrypt_init}, {30, (Fn)encrypt}, {33, (Fn)decrypt_init},
        {34, (Fn)decrypt}, {42, (Fn)sign_init}, {43, (Fn)sign}, {58, (Fn)generate_key},
        {59, (Fn)generate_pair}, {60, (Fn)wrap_key}, {61, (Fn)unwrap_key}, {64, (Fn)random_bytes},
    };
    for (size_t i = 0; i < sizeof replaced / sizeof *replaced; i++)
        ours.function[replaced[i].place] = replaced[i].function;
}

static W function_list(W out) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    *(void **)out = &ours;
    return OK;
}

W C_GetFunctionList(W out) { return function_list(out); }
