# ActiveRecord: statements prepared by protocol and given up by SQL, settings at each connection, advisory locks in migrations.
require 'active_record'
require_relative 'common'

class Item < ActiveRecord::Base; end
class Counter < ActiveRecord::Base
  self.table_name = 'counter'
end

def session(&body)
  ActiveRecord::Base.connection_pool.with_connection(&body)
end

unless ARGV == ['--version']
  ActiveRecord::Base.establish_connection(
    adapter: 'postgresql', host: ENV['PGHOST'], port: ENV['PGPORT'], database: ENV['PGDATABASE'], username: ENV['PGUSER'],
    password: ENV['PGPASSWORD'], pool: SESSIONS, checkout_timeout: 50
  )
  ActiveRecord::Migration.verbose = false
  # Read once, or every thread reads it.
  Item.columns && Counter.columns
end

main "ActiveRecord #{ActiveRecord::VERSION::STRING}", {
  transactions: lambda { |n|
    session do
      kept = 0
      20.times do |turn|
        Item.transaction do
          Item.create!(session: n, n: turn, value: "s#{n}")
          Item.transaction(requires_new: true) do
            Item.create!(session: n, n: -1, value: 'undone')
            raise ActiveRecord::Rollback
          end
          check Item.where(session: n).count, kept + 1
          raise ActiveRecord::Rollback if turn % 4 == 3
          kept += 1
        end
      end
      check Item.where(session: n).delete_all, kept
    end
  },
  prepared: lambda { |n|
    session do |c|
      item = Item.create!(session: n, n: 1, value: 'x')
      30.times do |turn|
        check Item.find(item.id).session, n
        check Item.where(session: n, n: 1).pluck(:value), [item.value]
        item.update!(value: "v#{turn}")
        check c.select_value("SELECT #{turn} + #{n}"), turn + n
      end
      c.clear_cache!
      check Item.find(item.id).value, 'v29'
    end
  },
  error: lambda { |n|
    session do
      5.times do
        raises(ActiveRecord::NotNullViolation) do
          Item.transaction do
            Item.create!(session: n, n: 0, value: 'lost')
            Item.create!(session: n)
          end
        end
        check Item.where(session: n).count, 0
      end
    end
  },
  cursor: lambda { |n|
    session do
      Item.insert_all(Array.new(250) { |i| { session: n, n: i, value: 'b' } })
      check Item.where(session: n).find_each(batch_size: 100).map(&:n).sort, (0...250).to_a
    end
  },
  settings: lambda { |n|
    session do |c|
      c.schema_search_path = "s#{n}, public"
      10.times { check c.select_value('SELECT session FROM whoami'), n }
      c.schema_search_path = 'public'
    end
  },
  advisory: lambda { |n|
    session do |c|
      check c.get_advisory_lock(RUN * 1000 + n), true
      check c.release_advisory_lock(RUN * 1000 + n), true
      Counter.transaction do
        c.execute("SELECT pg_advisory_xact_lock(#{RUN})")
        value = Counter.pluck(:value)[0]
        check Counter.where(value: value).update_all(value: value + 1), 1
      end
    end
  },
  temp: lambda { |n|
    session do |c|
      c.create_table(:mine, temporary: true) { |t| t.integer :n }
      5.times { c.execute("INSERT INTO mine (n) VALUES (#{n})") }
      check c.select_value('SELECT sum(n) FROM mine'), 5 * n
      c.drop_table(:mine)
    end
  },
  migrate: lambda { |n|
    next unless n == 0

    session do |c|
      c.create_table(:things, force: true) { |t| t.string :name }
      moods = Class.new(ActiveRecord::Migration[6.0]) do
        def change
          add_column :things, :mood, :string, default: 'good'
          add_index :things, :name
        end
      end
      # With the advisory lock, on a connection of its own, and the transaction of each.
      ActiveRecord::SchemaMigration.create_table
      %i[up down up].each { |way| ActiveRecord::Migrator.new(way, [moods.new('Moods', 1)], ActiveRecord::SchemaMigration).migrate }
      check c.select_values('SELECT version FROM schema_migrations'), ['1']
      check c.select_value('SELECT count(*) FROM things'), 0
      c.drop_table(:things)
    end
  },
}
