import com.sun.management.OperatingSystemMXBean;
import com.sun.net.httpserver.HttpServer;
import java.lang.management.ManagementFactory;
import java.net.InetSocketAddress;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.util.HexFormat;
import java.util.concurrent.Executors;

/** The tests' counter on a JVM, with 32 MB of live heap that are part of the chain's proof: they are summed up for each answer. */
public class Counter {
    private static final byte[][] HEAP = new byte[Integer.getInteger("blocks", 64)][1 << 19];
    private static String cookie;
    private static long count;
    private static byte[] chain = new byte[32];

    public static void main(String[] arguments) throws Exception {
        var random = new SecureRandom();
        for (byte[] block : HEAP) random.nextBytes(block);
        cookie = heap();
        var server = HttpServer.create(new InetSocketAddress("0.0.0.0", 8080), 64);
        server.createContext("/", exchange -> {
            byte[] body = exchange.getRequestBody().readAllBytes();
            byte[] text = answer(exchange.getRequestMethod().equals("POST") ? body : null).getBytes();
            exchange.sendResponseHeaders(200, text.length);
            exchange.getResponseBody().write(text);
            exchange.close();
        });
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.start();
    }

    private static synchronized String answer(byte[] body) {
        if (body != null) {
            var digest = sha256();
            digest.update(chain);
            chain = digest.digest(body);
            count++;
        }
        return "{\"count\":%d,\"chain\":\"%s\",\"cookie\":\"%s\",\"processors\":%d,\"memory\":%d}".formatted(
            count, HexFormat.of().formatHex(chain), body == null ? heap() : cookie, Runtime.getRuntime().availableProcessors(),
            ManagementFactory.getPlatformMXBean(OperatingSystemMXBean.class).getTotalMemorySize());
    }

    /** What all of it is, so that a single page lost shows. */
    private static String heap() {
        var digest = sha256();
        for (byte[] block : HEAP) digest.update(block);
        return HexFormat.of().formatHex(digest.digest());
    }

    private static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (java.security.NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
