-- What does wrk send, which answers are right, and how long did they take? Each call has a body of
-- its own, and the answer must be the body of a call that is under way: an echo. Writes one line of
-- JSON at the end. For one thread of wrk.
--
-- wrk does not say on which connection an answer came, so two answers swapped between callers of
-- one run are not seen here. Its own percentiles count the first calls too, and a slow answer also
-- for the calls that could have been made meanwhile: what callers met is measured here.
--
-- Arguments: a label for the bodies; the seconds at the beginning whose calls are checked and not
-- measured; the milliseconds between an answer and the next call.

local ffi = require("ffi")
ffi.cdef([[
    typedef struct { long s; long ns; } millrace_time;
    int clock_gettime(int clock, millrace_time *now);
]])
local CLOCK_MONOTONIC = 1
local now = ffi.new("millrace_time")

local function now_us()
    ffi.C.clock_gettime(CLOCK_MONOTONIC, now)
    return tonumber(now.s) * 1e6 + tonumber(now.ns) / 1e3
end

local thread

function setup(made)
    thread = made
end

function init(args)
    local label, warm_up_s, pause_ms = args[1], tonumber(args[2]), tonumber(args[3])
    local measured_from_us = now_us() + warm_up_s * 1e6
    local sent, began_us = 0, {}
    -- Globals, because only those can be read by `done`.
    taken_us, right, failed, wrong, example = {}, 0, 0, 0, ""

    local function body()
        return string.format("%s-%09d", label, sent)
    end

    local whole = wrk.format("POST", wrk.path, wrk.headers, body())
    local head = whole:sub(1, #whole - #body())

    function request()
        sent = sent + 1
        local text = body()
        began_us[text] = now_us()
        return head .. text
    end

    function response(status, _, text)
        local began = began_us[text]
        if status == 200 and began then
            right = right + 1
            if began >= measured_from_us then
                table.insert(taken_us, now_us() - began)
            end
            began_us[text] = nil
            return
        end
        if status == 200 then
            wrong = wrong + 1
        else
            failed = failed + 1
        end
        if example == "" then
            example = string.format("%d %s", status, text:sub(1, 200))
        end
    end

    if pause_ms > 0 then
        function delay()
            return pause_ms
        end
    end
end

local function quoted(text)
    local function escaped(character)
        return string.format("\\u%04x", character:byte())
    end
    return '"' .. text:gsub('[%c"\\\127-\255]', escaped) .. '"'
end

local function listed(numbers)
    local words = {}
    for i, number in ipairs(numbers) do
        words[i] = string.format("%.0f", number)
    end
    return "[" .. table.concat(words, ",") .. "]"
end

function done(summary)
    local errors = summary.errors
    io.write(string.format(
        '{"duration_us": %d, "taken_us": %s, "right": %d, "failed": %d, "wrong": %d, '
            .. '"unanswered": %d, "example": %s}\n',
        summary.duration, listed(thread:get("taken_us")), thread:get("right"),
        thread:get("failed"), thread:get("wrong"),
        errors.connect + errors.read + errors.write + errors.timeout,
        quoted(thread:get("example"))
    ))
end
