import java.security.PrivilegedExceptionAction;
import java.util.Map;
import java.util.Scanner;
import javax.security.auth.Subject;
import javax.security.auth.callback.Callback;
import javax.security.auth.callback.PasswordCallback;
import javax.security.auth.login.AppConfigurationEntry;
import javax.security.auth.login.Configuration;
import javax.security.auth.login.LoginContext;
import org.ietf.jgss.GSSContext;
import org.ietf.jgss.GSSManager;
import org.ietf.jgss.GSSName;
import org.ietf.jgss.Oid;

/** Logs in by the JDK's Krb5LoginModule, and gets a ticket for a service: Login PRINCIPAL SERVICE@HOST. */
public class Login {
    public static void main(String[] arguments) throws Exception {
        char[] password = new Scanner(System.in).nextLine().toCharArray();
        Map<String, String> options = Map.of("principal", arguments[0], "refreshKrb5Config", "true");
        Configuration configuration = new Configuration() {
            @Override
            public AppConfigurationEntry[] getAppConfigurationEntry(String name) {
                return new AppConfigurationEntry[] {new AppConfigurationEntry(
                    "com.sun.security.auth.module.Krb5LoginModule",
                    AppConfigurationEntry.LoginModuleControlFlag.REQUIRED,
                    options)};
            }
        };
        LoginContext login = new LoginContext("login", new Subject(), callbacks -> {
            for (Callback callback : callbacks) {
                if (callback instanceof PasswordCallback wanted) {
                    wanted.setPassword(password);
                }
            }
        }, configuration);
        login.login();
        System.out.println("logged in");
        PrivilegedExceptionAction<byte[]> getTicket = () -> {
            GSSManager manager = GSSManager.getInstance();
            GSSName name = manager.createName(arguments[1], GSSName.NT_HOSTBASED_SERVICE);
            Oid kerberos = new Oid("1.2.840.113554.1.2.2");
            GSSContext context = manager.createContext(name, kerberos, null, GSSContext.DEFAULT_LIFETIME);
            return context.initSecContext(new byte[0], 0, 0);
        };
        Subject.doAs(login.getSubject(), getTicket);
        System.out.println("has a ticket");
    }
}
