# What the programs share: 50 sessions at once, one line a scenario.
SESSIONS = Integer(ENV.fetch('SESSIONS', '50'))
# Keys of advisory locks that no other run uses.
RUN = Process.pid
$stdout.sync = true

def check(got, wanted)
  raise "is #{got.inspect}, not #{wanted.inspect}" unless got == wanted
end

def raises(error)
  yield
rescue error => e
  e
else
  raise "no #{error}"
end

# Scenarios by name: each is called with a session's number, in a thread of its own.
def together(name, body)
  bad = Array.new(SESSIONS) do |session|
    Thread.new do
      Thread.current.report_on_exception = false
      body.call(session)
      nil
    rescue StandardError => e
      e
    end
  end.filter_map(&:value)
  if bad.empty?
    puts "ok #{name}"
  else
    puts "FAILED #{name} #{bad.size} of #{SESSIONS} sessions: #{bad[0].class} #{bad[0].message.gsub(/\s+/, ' ')}"
    bad.each { |e| warn e.full_message }
  end
end

def main(version, scenarios)
  return puts(version) if ARGV == ['--version']

  ARGV.each { |name| together(name, scenarios[name.to_sym]) if scenarios.key?(name.to_sym) }
end
