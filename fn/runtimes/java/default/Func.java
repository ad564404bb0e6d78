import java.io.IOException;
import java.nio.charset.StandardCharsets;

/** Greets whom its input names. Each call has a process of its own. */
public class Func {
    static String greeting(String name) {
        return "Hello, " + (name.isBlank() ? "World" : name.strip()) + "!";
    }

    public static void main(String[] args) throws IOException {
        String body = new String(System.in.readAllBytes(), StandardCharsets.UTF_8);
        System.out.println(greeting(body));
    }
}
