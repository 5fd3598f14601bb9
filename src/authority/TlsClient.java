// Asks one host after the other over TLS, trusting one trust store and nothing else, and says what came of it.
// java TlsClient.java TRUST_STORE PORT HOST...
import java.io.FileInputStream;
import java.net.Socket;
import java.security.KeyStore;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

class TlsClient {
  public static void main(String[] arguments) throws Exception {
    KeyStore store = KeyStore.getInstance("PKCS12");
    try (FileInputStream file = new FileInputStream(arguments[0])) {
      store.load(file, "changeit".toCharArray());
    }
    TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(store);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(null, trust.getTrustManagers(), null);
    int port = Integer.parseInt(arguments[1]);
    for (int index = 2; index < arguments.length; index++) {
      System.out.println(arguments[index] + " " + ask(context, port, arguments[index]));
    }
  }

  static String ask(SSLContext context, int port, String host) throws Exception {
    Socket plain = new Socket("127.0.0.1", port);
    try (SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket(plain, host, port, true)) {
      SSLParameters parameters = socket.getSSLParameters();
      parameters.setEndpointIdentificationAlgorithm("HTTPS");
      socket.setSSLParameters(parameters);
      socket.startHandshake();
      return new String(socket.getInputStream().readAllBytes());
    } catch (javax.net.ssl.SSLException refused) {
      Throwable cause = refused;
      while (cause.getCause() != null) cause = cause.getCause();
      return "refused: " + cause.getMessage();
    }
  }
}
