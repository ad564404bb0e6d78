/* Answers each HTTP request that comes from `in` with its own body, on `out`.
 *
 * Returns 0 when the input ends between two requests; 1 if a request is malformed or cut off, its
 * length is not told by Content-Length, or `out` is gone. */
int echo_requests(int in, int out);
