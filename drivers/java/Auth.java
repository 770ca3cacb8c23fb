// pgjdbc: what scripts/auth-drivers.sh asks, a login a line of standard input, as libpq's keywords.
import java.io.*;
import java.sql.*;
import java.util.*;
import org.postgresql.PGProperty;

public class Auth {
    static class NotThere extends Exception {}

    static boolean has(String property) {
        return Arrays.stream(PGProperty.values()).anyMatch(p -> p.getName().equals(property));
    }

    static String logIn(Map<String, String> c) throws Exception {
        Properties p = new Properties();
        p.setProperty("user", c.get("user"));
        p.setProperty("password", c.get("password"));
        p.setProperty("loginTimeout", "20");
        for (String name : List.of("sslmode", "sslrootcert", "sslcert"))
            if (c.containsKey(name)) p.setProperty(name, c.get(name));
        // It reads no key in PEM.
        if (c.containsKey("sslkey_der")) p.setProperty("sslkey", c.get("sslkey_der"));
        Map<String, String> newer = Map.of("channel_binding", "channelBinding", "sslnegotiation", "sslNegotiation");
        for (Map.Entry<String, String> n : newer.entrySet()) {
            if (!c.containsKey(n.getKey())) continue;
            if (!has(n.getValue())) throw new NotThere();
            p.setProperty(n.getValue(), c.get(n.getKey()));
        }
        String url = "jdbc:postgresql://" + c.get("host") + ":" + c.get("port") + "/" + c.get("dbname");
        try (Connection connection = DriverManager.getConnection(url, p);
             Statement s = connection.createStatement();
             ResultSet r = s.executeQuery("SELECT current_user")) {
            r.next();
            return r.getString(1);
        }
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length > 0) {
            System.out.println("pgjdbc " + org.postgresql.util.DriverInfo.DRIVER_VERSION);
            return;
        }
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = in.readLine()) != null; ) {
            Map<String, String> c = new HashMap<>();
            for (String pair : line.split(" ")) {
                int at = pair.indexOf('=');
                c.put(pair.substring(0, at), pair.substring(at + 1));
            }
            String got = "ok", text;
            try {
                text = logIn(c);
            } catch (NotThere e) {
                System.out.println("none " + c.get("name"));
                continue;
            } catch (SQLException e) {
                got = "refused";
                text = String.valueOf(e.getMessage()).replaceAll("\\s+", " ");
            }
            if (!got.equals(c.get("expect"))) System.out.println("FAILED " + c.get("name") + " is " + got + ": " + text);
            else if (got.equals("ok") && !text.equals(c.get("user"))) System.out.println("FAILED " + c.get("name") + " logged in as " + text);
            else System.out.println("ok " + c.get("name"));
        }
    }
}
