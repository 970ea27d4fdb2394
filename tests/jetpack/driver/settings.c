/* Settings: words of the form NAME=VALUE, from a variable and from a file that is read again when it changes. */

typedef struct { char name[48]; char value[200]; } Setting;
static Setting settings[64];
static int setting_count;
static char settings_path[4096];
static struct timespec settings_time;
static long settings_size = -1;
static pthread_mutex_t settings_lock = PTHREAD_MUTEX_INITIALIZER;

static void take(char *text) {
    char *rest = NULL;
    for (char *word = strtok_r(text, ", \t\r\n", &rest); word; word = strtok_r(NULL, ", \t\r\n", &rest)) {
        char *equals = strchr(word, '=');
        if (!equals || setting_count == 64) continue;
        *equals = 0;
        Setting *made = &settings[setting_count++];
        snprintf(made->name, sizeof made->name, "%s", word);
        snprintf(made->value, sizeof made->value, "%s", equals + 1);
    }
}

static void find_settings(void) {
    const char *given = getenv("EDGEINFER_STUB_FILE");
    Dl_info here;
    if (given) {
        snprintf(settings_path, sizeof settings_path, "%s", given);
    } else if (dladdr((void *)find_settings, &here)) {
        snprintf(settings_path, sizeof settings_path, "%s", here.dli_fname);
        char *slash = strrchr(settings_path, '/');
        strcpy(slash ? slash + 1 : settings_path, "stub.conf");
    }
}

static void read_settings(void) {
    struct stat now = {0};
    if (!settings_path[0]) find_settings();
    if (stat(settings_path, &now)) now.st_size = 0;
    if (now.st_size == settings_size && !memcmp(&now.st_mtim, &settings_time, sizeof settings_time)) return;
    settings_size = now.st_size;
    settings_time = now.st_mtim;
    setting_count = 0;
    char text[8192] = "";
    FILE *file = fopen(settings_path, "r");
    if (file) {
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        fclose(file);
        take(text);
    }
    snprintf(text, sizeof text, "%s", getenv("EDGEINFER_STUB") ? getenv("EDGEINFER_STUB") : "");
    take(text);
}

/* The first of that name counts: the file before the variable. */
static int setting_text(const char *name, char *value, size_t size) {
    int found = 0;
    pthread_mutex_lock(&settings_lock);
    read_settings();
    for (int i = 0; i < setting_count && !found; i++)
        if (!strcmp(settings[i].name, name)) found = 1, snprintf(value, size, "%s", settings[i].value);
    pthread_mutex_unlock(&settings_lock);
    return found;
}

static long setting(const char *name, long otherwise) {
    char text[200];
    return setting_text(name, text, sizeof text) ? atol(text) : otherwise;
}
