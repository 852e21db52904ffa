/* SPDX-License-Identifier: Apache-2.0
 *
 * stage.c - a container that moves, as files: STATE/moving/UUID/image holds what the engine's archive of images holds, under
 * names of our own:
 *
 *   image.json        the configuration of the image that the container is made of over there (its SHA-256 is the image's id)
 *   base.json         the same of the image below it, without the container's own changes, if there are any
 *   layers/HEX.tar    a layer, by its diff id; those that the destination has stay away
 *
 * At the destination these are foreign: sizes and digests are checked, names are made anew, and tags of the source are not
 * taken over (a poisoned tag, CVE-2026-50195): the base is called novacron/carried:ID, the image has no name at all. The
 * engine itself compares each layer with its diff id.
 */
#include "drivers/docker/docker.h"
#include "drivers/common/parcel_record.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define CONFIG_MAX (1u << 20) /* bytes of an image's configuration */

int docker_stage(const struct docker *docker, const struct nova_guest *guest, const char *sub, char *path, size_t size)
{
	int length = snprintf(path, size, "%s/moving/%s%s%s", docker->state_dir, guest->uuid, *sub ? "/" : "", sub);

	return length > 0 && (size_t)length < size ? 0 : -1;
}

/* ---- rows ---- */

enum nova_step_result docker_stage_clear(struct nova_run *run, void *ctx, struct nova_error *err)
{
	struct task *task = ctx;
	char path[PATH_MAX];
	const char *argv[] = { "rm", "-rf", "--one-file-system", "--", path, NULL };

	if (docker_stage(task->self, task->guest, "", path, sizeof(path)) < 0 || access(path, F_OK) < 0)
		return NOVA_STEP_DONE;
	return task_program(task, argv, DOCKER_IMAGE_MS, NULL, err);
}

enum nova_step_result docker_stage_make(struct nova_run *run, void *ctx, struct nova_error *err)
{
	static const char *const subs[] = { "/..", "", "image", "checkpoint" };
	struct task *task = ctx;
	char path[PATH_MAX];

	for (size_t i = 0; i < sizeof(subs) / sizeof(*subs); i++) {
		if (i == 0)
			snprintf(path, sizeof(path), "%s/moving", ((struct docker *)task->self)->state_dir);
		else
			docker_stage(task->self, task->guest, subs[i], path, sizeof(path));
		if (mkdir(path, 0700) < 0 && errno != EEXIST) {
			nova_error_sys(err, errno, "cannot make %s", path);
			return NOVA_STEP_FAILED;
		}
	}
	return NOVA_STEP_DONE;
}

/* ---- configurations of images ---- */

static const char *hex_of(const char *digest)
{
	return digest && !strncmp(digest, "sha256:", 7) && docker_is_id(digest + 7) ? digest + 7 : NULL;
}

const json_t *docker_diff_ids(const json_t *config)
{
	return json_object_get(json_object_get(config, "rootfs"), "diff_ids");
}

/* A configuration below a directory, and its SHA-256 in hex. NULL with err, or with errno ENOENT and no err text. */
static json_t *read_config(int dir, const char *name, char hex[65], struct nova_error *err)
{
	NOVA_AUTOCLOSE int fd = parcel_open(dir, name, O_RDONLY, 0);
	NOVA_AUTOFREE char *text = malloc(CONFIG_MAX + 1);
	unsigned char digest[32];
	json_t *config;
	ssize_t got;

	if (fd < 0 || !text) {
		nova_error_sys(err, text ? errno : ENOMEM, "%s", name);
		return NULL;
	}
	got = read(fd, text, CONFIG_MAX + 1);
	if (got <= 0 || got > (ssize_t)CONFIG_MAX) {
		nova_error_set(err, NOVA_REFUSED, "%s: not 1 byte to 1 MiB", name);
		return NULL;
	}
	EVP_Digest(text, (size_t)got, digest, NULL, EVP_sha256(), NULL);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	config = json_loadb(text, (size_t)got, JSON_REJECT_DUPLICATES, NULL);
	if (!config)
		nova_error_set(err, NOVA_REFUSED, "%s: not JSON", name);
	return config;
}

/* What a configuration must not say, and what it must. */
static int check_config(const json_t *config, const char *name, struct nova_error *err)
{
	const json_t *diffs = docker_diff_ids(config), *own = json_object_get(config, "config");
	const char *workdir = task_text(own, "WorkingDir");
	size_t count = json_array_size(diffs);

	if (count < 1 || count > DOCKER_LAYERS_MAX)
		return nova_error_set(err, NOVA_REFUSED, "%s: %zu layers, 1 to %d are possible", name, count, DOCKER_LAYERS_MAX);
	for (size_t i = 0; i < count; i++)
		if (!hex_of(json_string_value(json_array_get(diffs, i))))
			return nova_error_set(err, NOVA_REFUSED, "%s: a layer has no SHA-256", name);
	if (json_object_size(json_object_get(own, "Volumes")))
		return nova_error_set(err, NOVA_REFUSED, "%s: the image has volumes of its own", name);
	if (workdir && (*workdir != '/' || !strncmp(workdir, "/proc", 5) || strstr(workdir, "..") || strstr(workdir, "//")))
		return nova_error_set(err, NOVA_REFUSED, "%s: its working directory is '%.120s'", name, workdir);
	return 0;
}

/* ---- the source: out of the engine's archive ---- */

static int join(char path[PATH_MAX], const char *dir, const char *name, struct nova_error *err)
{
	if (snprintf(path, PATH_MAX, "%s/%s", dir, name) < PATH_MAX)
		return 0;
	return nova_error_set(err, NOVA_INVALID, "%.100s/%.100s: the path is too long", dir, name);
}

static const json_t *find_entry(const json_t *manifest, const char *id)
{
	json_t *entry;
	size_t i;

	json_array_foreach ((json_t *)manifest, i, entry)
		if (strstr(task_text(entry, "Config") ?: "", hex_of(id) ?: "?"))
			return entry;
	return NULL;
}

/* A link between layers that are the same, or the layer. */
static int move_layer(const char *raw, const char *from, const char *image, const char *hex, struct nova_error *err)
{
	char path[PATH_MAX], target[PATH_MAX], name[96];
	NOVA_AUTOFREE char *top = realpath(raw, NULL), *real = NULL;

	snprintf(name, sizeof(name), "layers/%s.tar", hex);
	if (join(path, raw, from, err) < 0 || join(target, image, name, err) < 0)
		return -1;
	if (access(target, F_OK) == 0)
		return 0;
	real = realpath(path, NULL);
	if (!real || !top)
		return nova_error_sys(err, errno, "layer %.12s of the image", hex);
	if (strncmp(real, top, strlen(top)) || real[strlen(top)] != '/')
		return nova_error_set(err, NOVA_REFUSED, "layer %.12s lies outside of the engine's archive", hex);
	return rename(real, target) < 0 ? nova_error_sys(err, errno, "layer %.12s of the image", hex) : 0;
}

static int arrange_one(const char *stage, const json_t *manifest, const char *id, const char *name, struct nova_error *err)
{
	const json_t *entry = find_entry(manifest, id), *layers = json_object_get(entry, "Layers");
	char raw[PATH_MAX], image[PATH_MAX], from[PATH_MAX], to[PATH_MAX], hex[65];
	NOVA_AUTOJSON json_t *config = NULL;
	NOVA_AUTOCLOSE int dir = -1;

	if (join(raw, stage, "raw", err) < 0 || join(image, stage, "image", err) < 0 ||
	    join(from, raw, task_text(entry, "Config") ?: "?", err) < 0 || join(to, image, name, err) < 0)
		return -1;
	if (!entry || rename(from, to) < 0)
		return nova_error_set(err, NOVA_REFUSED, "docker: its archive has no image %.19s", id);
	dir = open(image, O_PATH | O_DIRECTORY | O_CLOEXEC);
	config = read_config(dir, name, hex, err);
	if (!config || check_config(config, name, err) < 0)
		return -1;
	if (json_array_size(layers) != json_array_size(docker_diff_ids(config)))
		return nova_error_set(err, NOVA_REFUSED, "docker: its archive of image %.19s is not whole", id);
	for (size_t i = 0; i < json_array_size(layers); i++)
		if (move_layer(raw, json_string_value(json_array_get(layers, i)) ?: "?", image,
			hex_of(json_string_value(json_array_get(docker_diff_ids(config), i))), err) < 0)
			return -1;
	return 0;
}

int docker_stage_arrange(const struct docker *docker, const struct nova_guest *guest, const char *image, const char *base,
    struct nova_error *err)
{
	char stage[PATH_MAX], path[PATH_MAX];
	NOVA_AUTOJSON json_t *manifest = NULL;

	docker_stage(docker, guest, "", stage, sizeof(stage));
	if (join(path, stage, "image/layers", err) < 0)
		return -1;
	if (mkdir(path, 0700) < 0)
		return nova_error_sys(err, errno, "%s", path);
	if (join(path, stage, "raw/manifest.json", err) < 0)
		return -1;
	manifest = json_load_file(path, 0, NULL);
	if (!json_is_array(manifest))
		return nova_error_set(err, NOVA_REFUSED, "docker: its archive has no manifest");
	if (arrange_one(stage, manifest, image, "image.json", err) < 0)
		return -1;
	return !strcmp(image, base) ? 0 : arrange_one(stage, manifest, base, "base.json", err);
}

/* ---- the destination: what the engine is to load ---- */

static bool is_prefix(const json_t *shorter, const json_t *longer)
{
	json_t *one;
	size_t i;

	json_array_foreach ((json_t *)shorter, i, one)
		if (!json_equal(one, json_array_get(longer, i)))
			return false;
	return true;
}

/* The layers' files that are here, once each. */
static int name_layers(int dir, const json_t *diffs, json_t *files, json_t *paths, struct nova_error *err)
{
	json_t *one, *known;
	size_t i, k;

	json_array_foreach ((json_t *)diffs, i, one) {
		char name[96];
		NOVA_AUTOCLOSE int fd = -1;
		struct stat st;
		bool twice = false;

		snprintf(name, sizeof(name), "layers/%s.tar", hex_of(json_string_value(one)));
		json_array_append_new(paths, json_string(name));
		fd = parcel_open(dir, name, O_RDONLY | O_NONBLOCK, 0);
		if (fd < 0 && errno == ENOENT)
			continue; /* the engine has it */
		if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
			return nova_error_set(err, NOVA_REFUSED, "%s is no file", name);
		json_array_foreach (files, k, known)
			twice |= !strcmp(json_string_value(known), name);
		if (!twice)
			json_array_append_new(files, json_string(name));
	}
	return 0;
}

static int write_manifest(int dir, const json_t *manifest, struct nova_error *err)
{
	NOVA_AUTOFREE char *text = json_dumps(manifest, JSON_COMPACT);
	NOVA_AUTOCLOSE int fd = parcel_open(dir, "manifest.json", O_WRONLY | O_CREAT | O_EXCL, 0600);

	if (fd < 0 || !text || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		return nova_error_sys(err, errno, "manifest.json");
	return 0;
}

static bool is_among(const json_t *ids, const char *hex)
{
	json_t *id;
	size_t i;

	json_array_foreach ((json_t *)ids, i, id)
		if (!strcmp(hex_of(json_string_value(id)) ?: "", hex))
			return true;
	return false;
}

static void add_image(struct docker_arrival *arrival, json_t *manifest, const char *name, const char *hex, bool tagged,
    const json_t *paths, const json_t *here)
{
	char id[80];

	snprintf(id, sizeof(id), "sha256:%s", hex);
	if (is_among(here, hex))
		return;
	json_array_append_new(arrival->loaded, json_string(id));
	json_array_append_new(arrival->files, json_string(name));
	json_array_append_new(manifest,
	    json_pack("{s:s, s:o, s:O}", "Config", name, "RepoTags",
		tagged ? json_pack("[o]", json_sprintf("novacron/carried:%.12s", hex)) : json_null(), "Layers", paths));
}

int docker_stage_assemble(const struct docker *docker, const struct nova_guest *guest, const json_t *here,
    struct docker_arrival *arrival, struct nova_error *err)
{
	NOVA_AUTOJSON json_t *image = NULL, *base = NULL, *manifest = json_array(), *paths = json_array(), *base_paths = json_array();
	char path[PATH_MAX], image_hex[65], base_hex[65];
	NOVA_AUTOCLOSE int dir = -1;

	docker_stage(docker, guest, "image", path, sizeof(path));
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	image = read_config(dir, "image.json", image_hex, err);
	if (!image || check_config(image, "image.json", err) < 0)
		return -1;
	base = read_config(dir, "base.json", base_hex, err);
	if (!base && err->errnum != ENOENT)
		return -1;
	if (base && (check_config(base, "base.json", err) < 0))
		return -1;
	if (base && !is_prefix(docker_diff_ids(base), docker_diff_ids(image)))
		return nova_error_set(err, NOVA_REFUSED, "base.json: its layers are not those of image.json");
	if (name_layers(dir, docker_diff_ids(image), arrival->files, paths, err) < 0)
		return -1;
	for (size_t i = 0; base && i < json_array_size(docker_diff_ids(base)); i++)
		json_array_append(base_paths, json_array_get(paths, i));
	if (base)
		add_image(arrival, manifest, "base.json", base_hex, true, base_paths, here);
	add_image(arrival, manifest, "image.json", image_hex, !base, paths, here);
	snprintf(arrival->image, sizeof(arrival->image), "sha256:%s", image_hex);
	snprintf(arrival->base, sizeof(arrival->base), "sha256:%s", base ? base_hex : image_hex);
	return write_manifest(dir, manifest, err);
}
