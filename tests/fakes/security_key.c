/* A security key in software, for tests: OpenSSH's provider interface (PROTOCOL.u2f, sk-api.h, version 10).
 *
 * The key handle is the private key itself. The flags that a signature carries are those in SECURITY_KEY_FLAGS, so that
 * a test decides whether somebody touched it.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#define API_VERSION 0x000a0000
#define ED25519 1
#define SEED 32
#define RAW 64
#define GENERAL_FAULT (-1)
#define UNSUPPORTED (-2)

struct sk_enroll_response {
    uint8_t flags;
    uint8_t *public_key;
    size_t public_key_len;
    uint8_t *key_handle;
    size_t key_handle_len;
    uint8_t *signature;
    size_t signature_len;
    uint8_t *attestation_cert;
    size_t attestation_cert_len;
    uint8_t *authdata;
    size_t authdata_len;
};

struct sk_sign_response {
    uint8_t flags;
    uint32_t counter;
    uint8_t *sig_r;
    size_t sig_r_len;
    uint8_t *sig_s;
    size_t sig_s_len;
};

struct sk_option;
struct sk_resident_key;

uint32_t sk_api_version(void) { return API_VERSION; }

int sk_enroll(uint32_t alg, const uint8_t *challenge, size_t challenge_len, const char *application, uint8_t flags,
              const char *pin, struct sk_option **options, struct sk_enroll_response **out) {
    struct sk_enroll_response *made = calloc(1, sizeof *made);
    size_t length = SEED;
    EVP_PKEY *key;
    if (alg != ED25519) return UNSUPPORTED;
    made->flags = flags;
    made->key_handle = malloc(SEED);
    made->key_handle_len = SEED;
    made->public_key = malloc(SEED);
    made->public_key_len = SEED;
    made->signature = calloc(1, RAW);
    made->signature_len = RAW;
    if (RAND_bytes(made->key_handle, SEED) != 1) return GENERAL_FAULT;
    key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, made->key_handle, SEED);
    if (key == NULL || EVP_PKEY_get_raw_public_key(key, made->public_key, &length) != 1) return GENERAL_FAULT;
    EVP_PKEY_free(key);
    *out = made;
    return 0;
}

int sk_sign(uint32_t alg, const uint8_t *data, size_t data_len, const char *application, const uint8_t *handle,
            size_t handle_len, uint8_t flags, const char *pin, struct sk_option **options,
            struct sk_sign_response **out) {
    struct sk_sign_response *made = calloc(1, sizeof *made);
    const char *wanted = getenv("SECURITY_KEY_FLAGS");
    uint8_t message[SHA256_DIGEST_LENGTH + 5 + SHA256_DIGEST_LENGTH];
    size_t length = RAW;
    EVP_PKEY *key;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (alg != ED25519 || handle_len != SEED) return UNSUPPORTED;
    made->flags = wanted ? (uint8_t)strtoul(wanted, NULL, 0) : 1;
    made->counter = 0x01020304;
    SHA256((const uint8_t *)application, strlen(application), message);
    message[SHA256_DIGEST_LENGTH] = made->flags;
    memcpy(message + SHA256_DIGEST_LENGTH + 1, "\x01\x02\x03\x04", 4);
    SHA256(data, data_len, message + SHA256_DIGEST_LENGTH + 5);
    made->sig_r = malloc(RAW);
    made->sig_r_len = RAW;
    key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, handle, SEED);
    if (key == NULL || EVP_DigestSignInit(context, NULL, NULL, NULL, key) != 1 ||
        EVP_DigestSign(context, made->sig_r, &length, message, sizeof message) != 1)
        return GENERAL_FAULT;
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    *out = made;
    return 0;
}

int sk_load_resident_keys(const char *pin, struct sk_option **options, struct sk_resident_key ***keys, size_t *count) {
    return UNSUPPORTED;
}
