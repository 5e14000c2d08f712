/* The selftest's pod: GET / answers the host name; GET /via/IP:PORT connects there, asks the
 * same and passes on the first bytes it gets. Counts requests, so that lost memory shows. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int served;

static void quit(int s) { (void)s; _exit(0); }

static int ask(const char *ip, int port, char *out, int size) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval limit = {.tv_sec = 2};
    int n = -1, s = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    inet_pton(AF_INET, ip, &to.sin_addr);
    if (connect(s, (void *)&to, sizeof to) == 0 && write(s, "GET / HTTP/1.0\r\n\r\n", 18) == 18)
        n = read(s, out, size - 1);
    close(s);
    out[n > 0 ? n : 0] = 0;
    return n;
}

int main(void) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(8080)};
    int one = 1, l = socket(AF_INET, SOCK_STREAM, 0);
    signal(SIGTERM, quit);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(l, (void *)&here, sizeof here) || listen(l, 64)) return 1;
    for (;;) {
        char request[1024] = "", host[64] = "", far[512] = "", ip[32];
        int port, s = accept(l, 0, 0);
        if (s < 0) continue;
        served++;
        if (fork()) { close(s); continue; }
        if (read(s, request, sizeof request - 1) > 0) {
            gethostname(host, sizeof host - 1);
            if (sscanf(request, "GET /via/%31[0-9.]:%d", ip, &port) == 2 && ask(ip, port, far, sizeof far) < 0)
                strcpy(far, "unreachable");
            dprintf(s, "HTTP/1.0 200 OK\r\n\r\nhost=%s served=%d via=[%s]\n", host, served, far);
        }
        _exit(0);
    }
}
