// Asks with java.net.http, which knows of Sidekey from its environment alone. See `harness/probe.py`.
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;

class Probe {
    public static void main(String[] arguments) throws InterruptedException {
        HttpClient client = HttpClient.newHttpClient();
        for (String argument : arguments) {
            String[] urlAndHost = argument.split(" ");
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(urlAndHost[0]))
                    .timeout(Duration.ofSeconds(20))
                    .header("Authorization", "Bearer " + System.getenv("TOKEN"));
            if (urlAndHost.length > 1) {
                // Over HTTP/2 this client leaves it out.
                request.header("Host", urlAndHost[1]).version(HttpClient.Version.HTTP_1_1);
            }
            try {
                var answer = client.send(request.build(), BodyHandlers.ofString());
                System.out.println("{\"status\": " + answer.statusCode() + ", \"text\": " + quoted(answer.body()) + "}");
            } catch (IOException error) {
                System.out.println("{\"error\": " + quoted(error.toString()) + "}");
            }
        }
    }

    static String quoted(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        text.chars().forEach(letter -> quoted.append(String.format("\\u%04x", letter)));
        return quoted.append('"').toString();
    }
}
