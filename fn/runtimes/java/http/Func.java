import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;

/** Greets whom a call's body names. One process answers call after call: an HTTP request each. */
public class Func {
    static String greeting(String name) {
        return "Hello, " + (name.isBlank() ? "World" : name.strip()) + "!\n";
    }

    public static void main(String[] args) throws IOException {
        InputStream calls = new BufferedInputStream(System.in);
        for (int length = bodyLength(calls); length >= 0; length = bodyLength(calls)) {
            String body = new String(calls.readNBytes(length), StandardCharsets.UTF_8);
            byte[] text = greeting(body).getBytes(StandardCharsets.UTF_8);
            String head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                + "Content-Length: " + text.length + "\r\n\r\n";
            System.out.write(head.getBytes(StandardCharsets.US_ASCII));
            System.out.write(text);
            System.out.flush();
        }
    }

    /** Reads the next call's header; returns how long its body is, or -1 if no more calls come. */
    static int bodyLength(InputStream calls) throws IOException {
        int length = 0;
        for (String line = line(calls); line != null; line = line(calls)) {
            if (line.isEmpty()) {
                return length;
            }
            String[] field = line.split(":", 2);
            if (field.length == 2 && field[0].equalsIgnoreCase("Content-Length")) {
                length = Integer.parseInt(field[1].strip());
            }
        }
        return -1;
    }

    /** Reads a line; returns it without its end, or null if there is none. */
    static String line(InputStream calls) throws IOException {
        ByteArrayOutputStream line = new ByteArrayOutputStream();
        for (int letter = calls.read(); letter != '\n'; letter = calls.read()) {
            if (letter < 0) {
                return null;
            }
            line.write(letter);
        }
        return line.toString(StandardCharsets.UTF_8).stripTrailing();
    }
}
